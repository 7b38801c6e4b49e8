#define _GNU_SOURCE
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK_BLOCKS = 64 };
#define TELL_NS 250000000ull

struct disk {
    char path[300];
    int file;
    uint64_t at;            /* where the fill begins, bytes */
    uint32_t blocks, hot;
    double rate;            /* blocks per second */
    uint32_t *counter;      /* writes of a block since the fill */
    pthread_mutex_t mutex;  /* held by whoever reads or writes the disk */
    atomic_uint_fast64_t written, failed;
};

static struct disk disks[MOST_DISKS];
static int known;

static int opened(const char *path)
{
    /* Past the guest's own cache; what knows no O_DIRECT (tmpfs) is opened as it is. */
    int file = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    return file < 0 && errno == EINVAL ? open(path, O_RDWR | O_CLOEXEC) : file;
}

static void *buffer_of(uint32_t blocks)
{
    void *buffer = NULL;
    return posix_memalign(&buffer, PAGE_BYTES, (size_t)blocks * PAGE_BYTES) ? NULL : buffer;
}

static bool put(struct disk *disk, const void *data, uint32_t block, uint32_t count)
{
    ssize_t size = (ssize_t)count * PAGE_BYTES;
    off_t where = (off_t)(disk->at + (uint64_t)block * PAGE_BYTES);
    return pwrite(disk->file, data, (size_t)size, where) == size;
}

static bool get(struct disk *disk, void *data, uint32_t block, uint32_t count)
{
    ssize_t size = (ssize_t)count * PAGE_BYTES;
    off_t where = (off_t)(disk->at + (uint64_t)block * PAGE_BYTES);
    return pread(disk->file, data, (size_t)size, where) == size;
}

static uint32_t drawn(uint64_t *state, uint32_t below)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)(((*state * 0x2545f4914f6cdd1dull >> 32) * below) >> 32);
}

static void write_one(struct disk *disk, void *buffer, uint64_t *state)
{
    uint32_t block = drawn(state, disk->hot);
    content_write(buffer, RANDOM, block, disk->counter[block] + 1, PAGE_BYTES);
    /* A failed write may have reached the disk or not; it is counted, and tests ask for none. */
    if (put(disk, buffer, block, 1))
        atomic_fetch_add(&disk->written, 1);
    else
        atomic_fetch_add(&disk->failed, 1);
    disk->counter[block]++;
}

static void *disk_run(void *whom)
{
    struct disk *disk = whom;
    void *buffer = buffer_of(1);
    uint64_t state = 0x1234567890abcdefull;
    double owed = 0;
    for (uint64_t last = now_ns();; usleep(SLICE_NS / 1000)) {
        uint64_t now = now_ns();
        pthread_mutex_lock(&disk->mutex);
        owed += disk->rate * (double)(now - last) / 1e9;
        double most = disk->rate * DEBT_NS / 1e9 + 1;
        owed = owed < most ? owed : most;
        for (; owed >= 1 && disk->hot; owed -= 1)
            write_one(disk, buffer, &state);
        pthread_mutex_unlock(&disk->mutex);
        last = now;
    }
    return NULL;
}

struct disk *disk_named(const char *path, const char **wrong)
{
    pthread_t thread;
    for (int i = 0; i < known; i++)
        if (strcmp(disks[i].path, path) == 0)
            return &disks[i];
    *wrong = "too many disks, or too long a name";
    if (known == MOST_DISKS || strlen(path) >= sizeof disks->path)
        return NULL;
    struct disk *disk = &disks[known];
    *wrong = "there is no such disk";
    if ((disk->file = opened(path)) < 0)
        return NULL;
    strcpy(disk->path, path);
    pthread_mutex_init(&disk->mutex, NULL);
    pthread_create(&thread, NULL, disk_run, disk);
    known++;
    return disk;
}

static void tell(uint32_t block, uint32_t blocks, uint64_t *last, progress_fn *progress, void *whom)
{
    if (now_ns() - *last < TELL_NS)
        return;
    *last = now_ns();
    progress(whom, (double)block / blocks);
}

static const char *fill(struct disk *disk, void *buffer, progress_fn *progress, void *whom)
{
    uint64_t last = now_ns();
    for (uint32_t block = 0; block < disk->blocks; block += CHUNK_BLOCKS) {
        uint32_t left = disk->blocks - block, count = left < CHUNK_BLOCKS ? left : CHUNK_BLOCKS;
        for (uint32_t i = 0; i < count; i++)
            content_write((uint8_t *)buffer + (size_t)i * PAGE_BYTES, RANDOM, block + i, 0,
                          PAGE_BYTES);
        if (!put(disk, buffer, block, count))
            return "the disk did not take the fill";
        tell(block, disk->blocks, &last, progress, whom);
    }
    return fsync(disk->file) ? "the disk did not flush" : NULL;
}

const char *disk_fill(struct disk *disk, uint64_t at, uint64_t bytes, progress_fn *progress,
                      void *whom)
{
    uint32_t blocks = (uint32_t)(bytes / PAGE_BYTES);
    uint32_t *counter = calloc(blocks ? blocks : 1, sizeof *counter);
    void *buffer = buffer_of(CHUNK_BLOCKS);
    if (!counter || !buffer || at % PAGE_BYTES)
        return "no memory for that many blocks, or not at a block";
    pthread_mutex_lock(&disk->mutex);
    free(disk->counter);
    disk->counter = counter;
    disk->at = at;
    disk->blocks = blocks;
    disk->hot = 0;
    const char *wrong = fill(disk, buffer, progress, whom);
    pthread_mutex_unlock(&disk->mutex);
    free(buffer);
    return wrong;
}

const char *disk_load(struct disk *disk, uint64_t hot, double rate)
{
    if (hot / PAGE_BYTES > disk->blocks)
        return "the hot blocks are more than the fill";
    pthread_mutex_lock(&disk->mutex);
    disk->hot = (uint32_t)(hot / PAGE_BYTES);
    disk->rate = rate;
    pthread_mutex_unlock(&disk->mutex);
    return NULL;
}

uint32_t disk_verify(struct disk *disk, uint32_t *first_bad, progress_fn *progress, void *whom)
{
    uint64_t last = now_ns();
    uint32_t bad = 0;
    uint8_t *buffer = buffer_of(CHUNK_BLOCKS);
    pthread_mutex_lock(&disk->mutex);
    for (uint32_t block = 0; buffer && block < disk->blocks; block += CHUNK_BLOCKS) {
        uint32_t left = disk->blocks - block, count = left < CHUNK_BLOCKS ? left : CHUNK_BLOCKS;
        bool read = get(disk, buffer, block, count);
        for (uint32_t i = 0; i < count; i++)
            if (!read || !content_matches(buffer + (size_t)i * PAGE_BYTES, RANDOM, block + i,
                                          disk->counter[block + i]))
                if (bad++ == 0)
                    *first_bad = block + i;
        tell(block, disk->blocks, &last, progress, whom);
    }
    pthread_mutex_unlock(&disk->mutex);
    free(buffer);
    return bad;
}

uint32_t disk_blocks(const struct disk *disk)
{
    return disk->blocks;
}

uint64_t disk_written(const struct disk *disk)
{
    return atomic_load(&disk->written);
}

uint64_t disk_failed(const struct disk *disk)
{
    return atomic_load(&disk->failed);
}
