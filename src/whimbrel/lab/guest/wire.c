#include "wire.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char PORTS[] = "/sys/class/virtio-ports";

static bool port_is(const char *device, const char *name)
{
    char path[512], held[128] = "";
    snprintf(path, sizeof path, "%s/%s/name", PORTS, device);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    bool read = fgets(held, sizeof held, file) != NULL;
    fclose(file);
    held[strcspn(held, "\n")] = 0;
    return read && strcmp(held, name) == 0;
}

int port_open(const char *name)
{
    char path[300];
    int port = -1;
    if (isdigit((unsigned char)name[0])) {
        port = atoi(name);
        fcntl(port, F_SETFL, fcntl(port, F_GETFL) | O_NONBLOCK);
        return port;
    }
    DIR *folder = opendir(PORTS);
    for (struct dirent *entry; folder && port < 0 && (entry = readdir(folder));) {
        if (entry->d_name[0] == '.' || !port_is(entry->d_name, name))
            continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        port = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    }
    if (folder)
        closedir(folder);
    return port;
}

/* Read what has come; false at the end of an inherited file. A port without a host reads 0. */
static bool receive(struct line_reader *reader)
{
    struct pollfd ready = {.fd = reader->port, .events = POLLIN};
    poll(&ready, 1, -1);
    size_t room = sizeof reader->buffer - reader->used;
    ssize_t got = read(reader->port, reader->buffer + reader->used, room);
    if (got > 0)
        reader->used += (size_t)got;
    else if (got == 0 && reader->ends)
        return false;
    else if (got == 0 || errno != EINTR)
        usleep(20000); /* No host at the port: polling returns at once (POLLHUP). */
    return true;
}

bool line_next(struct line_reader *reader, char **line)
{
    for (;;) {
        char *begin = reader->buffer + reader->start;
        char *end = memchr(begin, '\n', reader->used - reader->start);
        if (end) {
            *end = 0;
            reader->start = (size_t)(end + 1 - reader->buffer);
            *line = begin;
            return true;
        }
        memmove(reader->buffer, begin, reader->used - reader->start);
        reader->used -= reader->start;
        reader->start = 0;
        if (reader->used == sizeof reader->buffer)
            reader->used = 0;
        if (!receive(reader))
            return false;
    }
}

static char *skip(char *at)
{
    while (isspace((unsigned char)*at))
        at++;
    return at;
}

/* Read a string without escapes; NULL when there is none. */
static char *string_at(char *at, char **text)
{
    if (*at != '"')
        return NULL;
    *text = ++at;
    at += strcspn(at, "\"\\");
    if (*at != '"')
        return NULL;
    *at = 0;
    return at + 1;
}

/* Read a string, number or word; `after` gets the character that followed, which is lost. */
static char *value_at(char *at, char **text, char *after)
{
    if (*at == '"')
        at = string_at(at, text);
    else
        at = (*text = at) + strcspn(at, ",} \t");
    if (!at)
        return NULL;
    char *next = skip(at);
    *after = *next;
    *at = 0;
    return next + 1;
}

bool request_parse(char *line, struct request *request)
{
    char after = ',', *at = skip(line), *end;
    request->count = 0;
    if (*at++ != '{')
        return false;
    while (after == ',' && request->count < MOST_FIELDS) {
        struct field *field = &request->fields[request->count];
        if (!(at = string_at(skip(at), &field->key)) || *(at = skip(at)) != ':')
            return false;
        if (!(at = value_at(skip(at + 1), &field->value, &after)))
            return false;
        request->count++;
    }
    const char *id = request_text(request, "id", "");
    request->id = strtoull(id, &end, 10);
    return after == '}' && *id && !*end;
}

const char *request_text(const struct request *request, const char *key, const char *otherwise)
{
    for (int i = 0; i < request->count; i++)
        if (strcmp(request->fields[i].key, key) == 0)
            return request->fields[i].value;
    return otherwise;
}

double request_number(const struct request *request, const char *key, double otherwise)
{
    const char *text = request_text(request, key, "");
    char *end;
    double number = strtod(text, &end);
    return *text && !*end ? number : otherwise;
}

void line_send(int port, const char *format, ...)
{
    char line[LONGEST_LINE] = "\n";
    va_list words;
    va_start(words, format);
    int length = 1 + vsnprintf(line + 1, sizeof line - 2, format, words);
    va_end(words);
    if (length < 1 || length >= (int)sizeof line - 1)
        return;
    line[length++] = '\n';
    struct pollfd ready = {.fd = port, .events = POLLOUT};
    for (int sent = 0; sent < length;) {
        ssize_t wrote = write(port, line + sent, (size_t)(length - sent));
        if (wrote > 0)
            sent += (int)wrote;
        else if (errno != EAGAIN || poll(&ready, 1, SEND_PATIENCE_MS) <= 0)
            return;
    }
}
