/*
 * Lines of flat JSON over a virtio-serial port: {"id": 7, "do": "fill", "bytes": 4096}.
 *
 * Every line has a newline before it too: what a host that went away left half sent then stands
 * on a line of its own. Nothing here waits for a host that does not read: what the port does not take within
 * SEND_PATIENCE is dropped.
 */
#ifndef REDLINE_WIRE_H
#define REDLINE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOST_FIELDS = 16, LONGEST_LINE = 1024, SEND_PATIENCE_MS = 1000 };

struct field {
    char *key, *value;
};

struct request {
    struct field fields[MOST_FIELDS];
    int count;
    uint64_t id;
};

struct line_reader {
    int port;
    bool ends;  /* an inherited file ends; a virtio port only loses its host for a while */
    size_t used, start;
    char buffer[4 * LONGEST_LINE];
};

/* Open the virtio-serial port with this name, or a number as an inherited file; -1 when absent. */
int port_open(const char *name);

/* Wait for the next line, without its newline; over-long lines are dropped. False: port is gone. */
bool line_next(struct line_reader *reader, char **line);

/* Split a flat JSON object in place; false when it is not one, or has no whole `id`. */
bool request_parse(char *line, struct request *request);
const char *request_text(const struct request *request, const char *key, const char *otherwise);
double request_number(const struct request *request, const char *key, double otherwise);

/* Send one formatted line; the newlines are added. */
void line_send(int port, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
