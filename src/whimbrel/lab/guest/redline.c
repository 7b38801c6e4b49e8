/*
 * redline: fills a guest's memory, keeps dirtying it at a given rate, and proves afterwards that
 * every page arrived. docs/redline.md describes the protocol.
 *
 *     redline                             serve the two virtio-serial ports (inside the guest)
 *     redline serve CONTROL BEAT          serve other ports, or inherited file numbers
 *     redline dump PATTERN PAGES COUNTER  write pages' content to standard output
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "beat.h"
#include "disk.h"
#include "wire.h"
#include "writer.h"

enum { VERSION = 1 };

#define MIB (1ull << 20)
/* What the guest keeps for itself beside a fill: this much, and a share for page tables. */
#define SPARE_BYTES (8 * MIB)
#define SPARE_SHARE 256
/* Freed pages are numbered from here, so that none is like a filled one. */
#define FREED_FIRST (1u << 31)

struct service {
    int port;
    uint64_t id;            /* of the request in work */
    struct region region;
    struct load load;
    bool running;           /* the writer is to write whenever no command holds it */
    uint64_t since_ns, since_pages;
};

static void send_progress(void *whom, double share)
{
    const struct service *service = whom;
    line_send(service->port, "{\"id\": %llu, \"progress\": %.4f}", (unsigned long long)service->id,
              share);
}

static void send_error(const struct service *service, const char *what)
{
    line_send(service->port, "{\"id\": %llu, \"error\": \"%s\"}", (unsigned long long)service->id,
              what);
}

static void send_done(const struct service *service)
{
    line_send(service->port, "{\"id\": %llu, \"ok\": true}", (unsigned long long)service->id);
}

/* A line of /proc/meminfo in bytes; 0 when it is not there. */
static uint64_t meminfo(const char *name)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    size_t length = strlen(name);
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            sscanf(line + length + 1, "%llu", &kib);
    if (file)
        fclose(file);
    return kib * 1024;
}

static bool fits(uint64_t bytes)
{
    return bytes + bytes / SPARE_SHARE + SPARE_BYTES <= meminfo("MemAvailable");
}

static void resume(struct service *service)
{
    if (service->running)
        writer_resume(&service->region, service->load);
}

static void count_from_now(struct service *service)
{
    service->since_ns = now_ns();
    service->since_pages = writer_pages();
}

/* Read a load from a request; an error text, or NULL when it is a load for this region. */
static const char *read_load(const struct request *request, uint32_t pages, struct load *load)
{
    double hot = request_number(request, "hot", 0), touch = request_number(request, "touch", 4096);
    load->rate = request_number(request, "dirty_rate", 0) / PAGE_BYTES;
    load->access = access_named(request_text(request, "access", "uniform"));
    if (load->access == ACCESSES)
        return "no such access order";
    if (!(touch >= 1 && touch <= PAGE_BYTES))
        return "touch must be 1 to 4096 bytes";
    if (!(hot >= 0 && hot / PAGE_BYTES <= pages))
        return "the hot region is larger than the fill";
    if (!(load->rate >= 0 && load->rate < 1e9))
        return "the dirty rate is not a rate";
    load->touch = (unsigned)touch;
    load->hot = (uint32_t)(hot / PAGE_BYTES);
    return NULL;
}

static const char *do_fill(struct service *service, const struct request *request)
{
    uint64_t bytes = (uint64_t)request_number(request, "bytes", 0);
    enum pattern pattern = pattern_named(request_text(request, "pattern", "random"));
    uint32_t pages = (uint32_t)((bytes + PAGE_BYTES - 1) / PAGE_BYTES);
    struct load load;
    if (pattern == PATTERNS)
        return "no such pattern";
    if (bytes / PAGE_BYTES >= FREED_FIRST)
        return "the fill is too large";
    const char *wrong = read_load(request, pages, &load);
    if (wrong)
        return wrong;
    writer_pause();
    service->running = false;
    region_unmap(&service->region);
    if (!fits(bytes))
        return "the fill does not fit the guest's free memory; nothing is filled now";
    if (bytes > 0 && !region_map(&service->region, bytes, pattern))
        return "the guest's kernel gave no memory; nothing is filled now";
    region_fill(&service->region, 0, send_progress, service);
    service->load = load;
    service->running = true;
    count_from_now(service);
    resume(service);
    send_done(service);
    return NULL;
}

static const char *do_load(struct service *service, const struct request *request)
{
    struct load load;
    const char *wrong = read_load(request, service->region.pages, &load);
    if (wrong)
        return wrong;
    writer_pause();
    service->load = load;
    count_from_now(service);
    resume(service);
    send_done(service);
    return NULL;
}

static const char *do_free(struct service *service, const struct request *request)
{
    uint64_t bytes = (uint64_t)request_number(request, "bytes", 0);
    enum pattern pattern = pattern_named(request_text(request, "pattern", "random"));
    struct region region;
    if (pattern == PATTERNS)
        return "no such pattern";
    if (!fits(bytes))
        return "what is to be freed does not fit the guest's free memory";
    if (bytes > 0 && !region_map(&region, bytes, pattern))
        return "the guest's kernel gave no memory";
    if (bytes > 0) {
        region_fill(&region, FREED_FIRST, send_progress, service);
        region_unmap(&region);
    }
    send_done(service);
    return NULL;
}

static const char *do_verify(struct service *service, const struct request *request)
{
    (void)request;
    uint32_t first = 0;
    writer_pause();
    uint32_t bad = region_verify(&service->region, &first, send_progress, service);
    resume(service);
    line_send(service->port,
              "{\"id\": %llu, \"pages_checked\": %u, \"bad_pages\": %u, \"first_bad\": %lld}",
              (unsigned long long)service->id, service->region.pages, bad,
              bad ? (long long)first : -1);
    return NULL;
}

static const char *do_corrupt(struct service *service, const struct request *request)
{
    double page = request_number(request, "page", -1);
    if (!(page >= 0 && page < service->region.pages))
        return "no such page";
    writer_pause();
    service->region.memory[(uint64_t)page * PAGE_BYTES + PAGE_BYTES - 1] ^= 0x40;
    resume(service);
    send_done(service);
    return NULL;
}

static const char *do_status(struct service *service, const struct request *request)
{
    (void)request;
    uint64_t pages = writer_pages(), elapsed = now_ns() - service->since_ns;
    double since = elapsed ? (double)(pages - service->since_pages) * 1e9 / (double)elapsed : 0;
    line_send(service->port,
              "{\"id\": %llu, \"version\": %d, \"filled\": %llu, \"writing\": %s, "
              "\"pages_dirtied\": %llu, \"rate\": %.0f, \"rate_since\": %.0f, "
              "\"memory_total\": %llu, \"memory_free\": %llu, \"memory_cached\": %llu}",
              (unsigned long long)service->id, VERSION,
              (unsigned long long)service->region.pages * PAGE_BYTES,
              service->running && service->load.hot && service->load.rate > 0 ? "true" : "false",
              (unsigned long long)pages, beat_rate() * PAGE_BYTES, since * PAGE_BYTES,
              (unsigned long long)meminfo("MemTotal"), (unsigned long long)meminfo("MemFree"),
              (unsigned long long)meminfo("Cached"));
    return NULL;
}

static const char *do_stop(struct service *service, const struct request *request)
{
    (void)request;
    writer_pause();
    service->running = false;
    send_done(service);
    return NULL;
}

static const char *do_start(struct service *service, const struct request *request)
{
    (void)request;
    writer_pause();
    service->running = true;
    count_from_now(service);
    resume(service);
    send_done(service);
    return NULL;
}

static struct disk *named(const struct request *request, const char **wrong)
{
    return disk_named(request_text(request, "disk", "/dev/vda"), wrong);
}

static const char *do_disk_fill(struct service *service, const struct request *request)
{
    const char *wrong = NULL;
    struct disk *disk = named(request, &wrong);
    if (!disk)
        return wrong;
    wrong = disk_fill(disk, (uint64_t)request_number(request, "at", 0),
                      (uint64_t)request_number(request, "bytes", 0), send_progress, service);
    if (wrong)
        return wrong;
    send_done(service);
    return NULL;
}

static const char *do_disk_load(struct service *service, const struct request *request)
{
    const char *wrong = NULL;
    struct disk *disk = named(request, &wrong);
    double rate = request_number(request, "rate", 0);
    if (!disk)
        return wrong;
    if (!(rate >= 0 && rate < 1e12))
        return "the rate is not a rate";
    wrong = disk_load(disk, (uint64_t)request_number(request, "hot", 0), rate / PAGE_BYTES);
    if (wrong)
        return wrong;
    send_done(service);
    return NULL;
}

static const char *do_disk_verify(struct service *service, const struct request *request)
{
    const char *wrong = NULL;
    struct disk *disk = named(request, &wrong);
    uint32_t first = 0;
    if (!disk)
        return wrong;
    uint32_t bad = disk_verify(disk, &first, send_progress, service);
    line_send(service->port,
              "{\"id\": %llu, \"blocks_checked\": %u, \"bad_blocks\": %u, \"first_bad\": %lld, "
              "\"written\": %llu, \"failed\": %llu}",
              (unsigned long long)service->id, disk_blocks(disk), bad,
              bad ? (long long)first : -1, (unsigned long long)disk_written(disk),
              (unsigned long long)disk_failed(disk));
    return NULL;
}

static const char *do_disk_status(struct service *service, const struct request *request)
{
    const char *wrong = NULL;
    struct disk *disk = named(request, &wrong);
    if (!disk)
        return wrong;
    line_send(service->port, "{\"id\": %llu, \"written\": %llu, \"failed\": %llu}",
              (unsigned long long)service->id, (unsigned long long)disk_written(disk),
              (unsigned long long)disk_failed(disk));
    return NULL;
}

static const struct {
    const char *name;
    const char *(*run)(struct service *service, const struct request *request);
} COMMANDS[] = {
    {"fill", do_fill},     {"load", do_load},       {"free", do_free}, {"verify", do_verify},
    {"status", do_status}, {"corrupt", do_corrupt}, {"stop", do_stop}, {"start", do_start},
    {"disk_fill", do_disk_fill},     {"disk_load", do_disk_load},
    {"disk_verify", do_disk_verify}, {"disk_status", do_disk_status},
};

static const char *obey(struct service *service, const struct request *request)
{
    const char *name = request_text(request, "do", "");
    for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++)
        if (strcmp(COMMANDS[i].name, name) == 0)
            return COMMANDS[i].run(service, request);
    return "no such command";
}

/* Open a port; a virtio port may appear a little after its driver. */
static int await_port(const char *name)
{
    int port = port_open(name);
    for (int tries = 0; port < 0 && tries < 500; tries++) {
        usleep(10000);
        port = port_open(name);
    }
    if (port < 0) {
        fprintf(stderr, "redline: no port %s\n", name);
        exit(1);
    }
    return port;
}

static void serve(const char *control, const char *beat)
{
    static struct service service;
    static struct line_reader reader;
    struct request request;
    content_prepare();
    service.port = reader.port = await_port(control);
    reader.ends = control[0] >= '0' && control[0] <= '9';
    beat_start(await_port(beat));
    writer_start();
    puts("redline: ready");
    fflush(stdout);
    for (char *line; line_next(&reader, &line);) {
        /* What cannot be read is the rest of an earlier host's line: nobody waits for it. */
        if (!request_parse(line, &request))
            continue;
        service.id = request.id;
        const char *wrong = obey(&service, &request);
        if (wrong)
            send_error(&service, wrong);
    }
}

static void dump(enum pattern pattern, uint32_t pages, uint32_t counter)
{
    static uint8_t memory[PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));
    content_prepare();
    for (uint32_t page = 0; page < pages; page++) {
        content_write(memory, pattern, page, counter, PAGE_BYTES);
        fwrite(memory, PAGE_BYTES, 1, stdout);
    }
}

int main(int count, char **words)
{
    signal(SIGPIPE, SIG_IGN);
    if (count == 1)
        serve("org.whimbrel.redline", "org.whimbrel.beat");
    else if (count == 4 && strcmp(words[1], "serve") == 0)
        serve(words[2], words[3]);
    else if (count == 5 && strcmp(words[1], "dump") == 0)
        dump(pattern_named(words[2]), (uint32_t)atoi(words[3]), (uint32_t)atoi(words[4]));
    else
        return 2;
    return 0;
}
