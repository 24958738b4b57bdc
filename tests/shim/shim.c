/* A disk that can lose its power, for tests only: a library that is preloaded into the unmodified
 * program (LD_PRELOAD) and stands between it and the C library for everything that changes files below
 * one directory, and for the wall clock.
 *
 * It writes a journal of every change and of every fsync, from which tests/src/powercut makes the state
 * that a power cut could have left. It can end its process at a chosen call, let calls fail, slow syncs
 * down, and step the clock, as a page of memory that it shares with the test says.
 *
 * It never does: change what the program writes, or take for durable what only sync_file_range(2) wrote
 * (see that page's warning). What it does not know how to write down, it refuses by ending the process
 * loudly: a shared mapping of a watched file for writing, sendfile, splice, copy_file_range.
 *
 * Invariants: a change is in the journal before its call returns, in the order in which the kernel made
 * them; "sync began" stands after every change that the sync covers, "synced" after it was done. So
 * the journal, cut anywhere, is a state that the disk was in.
 *
 *   RHUMB_SHIM_WATCH    the directory, as realpath(3) gives it
 *   RHUMB_SHIM_JOURNAL  the journal; records are appended
 *   RHUMB_SHIM_CONTROL  the page; see struct control
 *
 * With RHUMB_SHIM_PARENT, a process number, its process is killed as soon as the thread that started it
 * has ended: a process that stands still (SIGSTOP) hears of nothing else.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define FDS (1 << 16)
#define PARTS 1024

/* What the test and the shim tell each other: eight numbers of 64 bits. */
struct control {
    _Atomic uint64_t calls;       /* told: watched calls so far */
    _Atomic uint64_t stop_at;     /* the process ends before this one; 0: never */
    _Atomic uint64_t refuse;      /* every change fails with this errno; 0: none */
    _Atomic uint64_t room;        /* bytes by which files may still grow */
    _Atomic uint64_t sync_fails;  /* so many syncs fail with EIO */
    _Atomic uint64_t sync_delay;  /* milliseconds that each sync takes longer */
    _Atomic int64_t clock_step;   /* milliseconds by which the wall clock is off */
    _Atomic uint64_t failed;      /* told: calls that failed as asked */
};

enum kind {
    CREATED = 1, /* a: inode, b: directory's inode, c: 1 for a directory; its name */
    WROTE,       /* a: inode, b: offset; the bytes */
    SIZED,       /* a: inode, b: length */
    SYNC,        /* a: inode, c: token */
    SYNCED,      /* c: token */
    SYNC_FAILED, /* c: token */
    LINKED,      /* a: inode, b: directory's inode; the new name */
    REMOVED,     /* b: directory's inode; the name */
    RENAMED,     /* b, c: inodes of old and new directory; old name, NUL, new name */
    STOPPED,     /* a: number of the call that was not made */
    POINTED,     /* a: inode, b: directory's inode: a symbolic link; its name, NUL, where it points */
};

struct record {
    uint32_t magic, kind;
    uint64_t a, b, c, length;
};

static struct control *control;
static char watched_path[PATH_MAX];
static size_t watched_length;
static int journal = -1;
static uint64_t tokens;
static _Atomic uint64_t marks[FDS]; /* the inode of a watched file by its descriptor, else 0 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int (*next_clock_gettime)(clockid_t, struct timespec *);
static int (*next_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static FILE *(*next_fopen)(const char *, const char *);
static FILE *(*next_fdopen)(int, const char *);
static DIR *(*next_fdopendir)(int);

static _Noreturn void die(const char *why) {
    static const char head[] = "power-cut shim: ";
    (void)!write(2, head, sizeof head - 1);
    (void)!write(2, why, strlen(why));
    (void)!write(2, "\n", 1);
    abort();
}

/* Dies with its parent, also if that has gone already. */
static void dies_with(const char *parent) {
    syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != atoi(parent)) _exit(1);
}

__attribute__((constructor)) static void begin(void) {
    const char *watch = getenv("RHUMB_SHIM_WATCH"), *to = getenv("RHUMB_SHIM_JOURNAL"),
               *page = getenv("RHUMB_SHIM_CONTROL"), *parent = getenv("RHUMB_SHIM_PARENT");
    if (parent) dies_with(parent);
    next_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    /* Without its version an older one is found, which takes the condition for another thing. */
    next_timedwait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!next_timedwait) next_timedwait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    next_fopen = dlsym(RTLD_NEXT, "fopen");
    next_fdopen = dlsym(RTLD_NEXT, "fdopen");
    next_fdopendir = dlsym(RTLD_NEXT, "fdopendir");
    if (!watch || !to || !page) return;
    watched_length = strlen(watch);
    if (watched_length >= sizeof watched_path) die("the watched path is too long");
    memcpy(watched_path, watch, watched_length + 1);
    journal = syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int fd = syscall(SYS_openat, AT_FDCWD, page, O_RDWR | O_CLOEXEC, 0);
    if (journal < 0 || fd < 0) die("its journal or its control page cannot be opened");
    void *at = (void *)syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) die("its control page cannot be mapped");
    syscall(SYS_close, fd);
    control = at;
}

/* ---- The journal ------------------------------------------------------------------------------- */

static void note(enum kind kind, uint64_t a, uint64_t b, uint64_t c, const struct iovec *parts, int count,
                 size_t length) {
    struct record head = {0x52484d4a, kind, a, b, c, length};
    struct iovec all[PARTS + 1] = {{&head, sizeof head}};
    size_t left = length;
    int used = 1;
    for (int i = 0; i < count && left > 0; i++, used++) {
        all[used] = parts[i];
        if (all[used].iov_len > left) all[used].iov_len = left;
        left -= all[used].iov_len;
    }
    size_t whole = sizeof head + length;
    if (syscall(SYS_writev, journal, all, used) != (ssize_t)whole) die("its journal takes no more");
}

static void note_name(enum kind kind, uint64_t a, uint64_t b, uint64_t c, const char *name, size_t length) {
    struct iovec part = {(void *)name, length};
    note(kind, a, b, c, &part, 1, length);
}

/* A watched call begins, perhaps the last one. The lock is held. */
static void enter(void) {
    uint64_t call = atomic_fetch_add(&control->calls, 1) + 1, stop = control->stop_at;
    if (stop == 0 || call < stop) return;
    note(STOPPED, call, 0, 0, NULL, 0, 0);
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

static int refused(int error) {
    atomic_fetch_add(&control->failed, 1);
    errno = error;
    return -1;
}

static int leave(int result) {
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

/* Why a change that needs room, or does not, fails; 0 if it does not. */
static int why_not(int needs_room) {
    if (control->refuse) return (int)control->refuse;
    return needs_room && control->room == 0 ? ENOSPC : 0;
}

/* ---- Which files are watched ------------------------------------------------------------------- */

static uint64_t mark(int fd) {
    return control && fd >= 0 && fd < FDS ? marks[fd] : 0;
}

static void set_mark(int fd, uint64_t inode) {
    if (fd >= FDS && inode) die("a descriptor is beyond those that it keeps");
    if (fd >= 0 && fd < FDS) marks[fd] = inode;
}

/* Whether a descriptor's file stands below the directory, or is it. */
static int is_below(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    return n >= (ssize_t)watched_length && memcmp(path, watched_path, watched_length) == 0 &&
           (n == (ssize_t)watched_length || path[watched_length] == '/');
}

static uint64_t inode_of(int fd) {
    struct stat found;
    return syscall(SYS_newfstatat, fd, "", &found, AT_EMPTY_PATH) == 0 ? found.st_ino : 0;
}

/* Where a name stands. */
struct place {
    uint64_t directory; /* its inode; 0 when it is not watched */
    char name[NAME_MAX + 1];
    size_t length;
};

static struct place place_of(int at, const char *path) {
    struct place place = {0};
    if (!control || !path) return place;
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    if (end - begin > NAME_MAX || end >= PATH_MAX || begin == end) return place;
    char parent[PATH_MAX];
    memcpy(parent, path, begin);
    parent[begin] = 0;
    int fd = syscall(SYS_openat, at, begin ? parent : ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) return place;
    if (is_below(fd)) place.directory = inode_of(fd);
    syscall(SYS_close, fd);
    place.length = end - begin;
    memcpy(place.name, path + begin, place.length);
    return place;
}

static int exists(int at, const char *path) {
    struct stat found;
    return syscall(SYS_newfstatat, at, path, &found, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- Opening and closing ----------------------------------------------------------------------- */

static int open_watched(int at, const char *path, int flags, mode_t mode, const struct place *place) {
    int changes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
    if ((flags & O_TMPFILE) == O_TMPFILE) die("a nameless file in the watched directory");
    if (!changes) {
        int fd = syscall(SYS_openat, at, path, flags, mode);
        if (fd >= 0) set_mark(fd, inode_of(fd));
        return fd;
    }
    pthread_mutex_lock(&lock);
    int existed = exists(at, path), creates = (flags & O_CREAT) && !existed;
    if (creates || (flags & O_TRUNC)) enter();
    int error = creates ? why_not(1) : (int)control->refuse;
    if (error) return leave(refused(error));
    int fd = syscall(SYS_openat, at, path, flags, mode);
    if (fd < 0) return leave(fd);
    uint64_t inode = inode_of(fd);
    if (creates) note_name(CREATED, inode, place->directory, 0, place->name, place->length);
    if ((flags & O_TRUNC) && existed) note(SIZED, inode, 0, 0, NULL, 0, 0);
    set_mark(fd, inode);
    return leave(fd);
}

static int open_any(int at, const char *path, int flags, mode_t mode) {
    struct place place = place_of(at, path);
    if (place.directory) return open_watched(at, path, flags, mode, &place);
    int fd = syscall(SYS_openat, at, path, flags, mode);
    /* The directory itself, whose parent is not watched. */
    if (fd >= 0 && control) set_mark(fd, is_below(fd) ? inode_of(fd) : 0);
    return fd;
}

#define MODE(flags, last)                                                                          \
    mode_t mode = 0;                                                                               \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) {                                                    \
        va_list rest;                                                                              \
        va_start(rest, last);                                                                      \
        mode = va_arg(rest, mode_t);                                                               \
        va_end(rest);                                                                              \
    }

EXPORT int open(const char *path, int flags, ...) {
    MODE(flags, flags)
    return open_any(AT_FDCWD, path, flags, mode);
}

EXPORT int openat(int at, const char *path, int flags, ...) {
    MODE(flags, flags)
    return open_any(at, path, flags, mode);
}

EXPORT int creat(const char *path, mode_t mode) {
    return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

EXPORT int close(int fd) {
    set_mark(fd, 0);
    return syscall(SYS_close, fd);
}

EXPORT int dup(int fd) {
    int copy = syscall(SYS_dup, fd);
    if (copy >= 0) set_mark(copy, mark(fd));
    return copy;
}

EXPORT int dup3(int fd, int to, int flags) {
    int copy = syscall(SYS_dup3, fd, to, flags);
    if (copy >= 0) set_mark(copy, mark(fd));
    return copy;
}

EXPORT int dup2(int fd, int to) {
    return fd == to ? (syscall(SYS_fcntl, fd, F_GETFD) < 0 ? -1 : to) : dup3(fd, to, 0);
}

EXPORT int fcntl(int fd, int what, ...) {
    va_list rest;
    va_start(rest, what);
    void *with = va_arg(rest, void *);
    va_end(rest);
    int result = syscall(SYS_fcntl, fd, what, with);
    if (result >= 0 && (what == F_DUPFD || what == F_DUPFD_CLOEXEC)) set_mark(result, mark(fd));
    return result;
}

/* The C library closes these descriptors by itself, and nobody hears of it. */
EXPORT DIR *fdopendir(int fd) {
    set_mark(fd, 0);
    return next_fdopendir(fd);
}

EXPORT FILE *fdopen(int fd, const char *mode) {
    if (mark(fd) && (mode[0] != 'r' || strchr(mode, '+'))) die("fdopen of a watched file for writing");
    set_mark(fd, 0);
    return next_fdopen(fd, mode);
}

EXPORT FILE *fopen(const char *path, const char *mode) {
    int writes = mode[0] != 'r' || strchr(mode, '+');
    if (writes && place_of(AT_FDCWD, path).directory) die("fopen of a watched file for writing");
    return next_fopen(path, mode);
}

/* ---- Writing ----------------------------------------------------------------------------------- */

/* Writes at an offset, or where the file stands (-1). A disk without room takes a part, then none. */
static ssize_t write_watched(int fd, uint64_t inode, const struct iovec *parts, int count, off_t at) {
    struct iovec some[PARTS];
    struct stat before;
    size_t wanted = 0, used = 0, left;
    if (count > PARTS) die("a write of more parts than it keeps");
    for (int i = 0; i < count; i++) wanted += parts[i].iov_len;
    pthread_mutex_lock(&lock);
    enter();
    int error = why_not(0);
    if (error) return leave(refused(error));
    syscall(SYS_newfstatat, fd, "", &before, AT_EMPTY_PATH);
    int appends = syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND;
    off_t from = at >= 0 ? at : appends ? before.st_size : syscall(SYS_lseek, fd, 0, SEEK_CUR);
    uint64_t room = control->room;
    off_t limit = room > INT64_MAX / 2 ? INT64_MAX / 2 : before.st_size + (off_t)room;
    size_t takes = from >= limit ? 0 : (size_t)(limit - from) < wanted ? (size_t)(limit - from) : wanted;
    if (takes == 0 && wanted > 0) return leave(refused(ENOSPC));
    left = takes;
    for (; left > 0; used++) {
        some[used] = parts[used];
        if (some[used].iov_len > left) some[used].iov_len = left;
        left -= some[used].iov_len;
    }
    ssize_t wrote = at >= 0 ? syscall(SYS_pwritev, fd, some, used, (long)at, 0L)
                            : syscall(SYS_writev, fd, some, used);
    if (wrote > 0) {
        note(WROTE, inode, from, 0, some, used, wrote);
        uint64_t grown = from + wrote > before.st_size ? from + wrote - before.st_size : 0;
        if (room != UINT64_MAX) atomic_fetch_sub(&control->room, grown);
    }
    int failed = errno;
    pthread_mutex_unlock(&lock);
    errno = failed;
    return wrote;
}

EXPORT ssize_t write(int fd, const void *bytes, size_t length) {
    uint64_t inode = mark(fd);
    struct iovec part = {(void *)bytes, length};
    return inode ? write_watched(fd, inode, &part, 1, -1) : syscall(SYS_write, fd, bytes, length);
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count) {
    uint64_t inode = mark(fd);
    return inode ? write_watched(fd, inode, parts, count, -1) : syscall(SYS_writev, fd, parts, count);
}

EXPORT ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    uint64_t inode = mark(fd);
    struct iovec part = {(void *)bytes, length};
    return inode ? write_watched(fd, inode, &part, 1, at) : syscall(SYS_pwrite64, fd, bytes, length, at);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    uint64_t inode = mark(fd);
    return inode ? write_watched(fd, inode, parts, count, at)
                 : syscall(SYS_pwritev, fd, parts, count, (long)at, 0L);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    if (mark(fd)) die("pwritev2 on a watched file");
    return syscall(SYS_pwritev2, fd, parts, count, (long)at, 0L, flags);
}

EXPORT int ftruncate(int fd, off_t length) {
    uint64_t inode = mark(fd);
    if (!inode) return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    enter();
    if (control->refuse) return leave(refused((int)control->refuse));
    int result = syscall(SYS_ftruncate, fd, length);
    if (result == 0) note(SIZED, inode, length, 0, NULL, 0, 0);
    return leave(result);
}

EXPORT int truncate(const char *path, off_t length) {
    if (place_of(AT_FDCWD, path).directory) die("truncate of a watched file by its name");
    return syscall(SYS_truncate, path, length);
}

EXPORT int fallocate(int fd, int mode, off_t from, off_t length) {
    uint64_t inode = mark(fd);
    if (!inode) return syscall(SYS_fallocate, fd, mode, from, length);
    if (mode & ~FALLOC_FL_KEEP_SIZE) die("fallocate that changes more than a length");
    pthread_mutex_lock(&lock);
    enter();
    int error = why_not(1);
    if (error) return leave(refused(error));
    struct stat before;
    syscall(SYS_newfstatat, fd, "", &before, AT_EMPTY_PATH);
    int result = syscall(SYS_fallocate, fd, mode, from, length);
    if (result == 0 && !(mode & FALLOC_FL_KEEP_SIZE) && from + length > before.st_size)
        note(SIZED, inode, from + length, 0, NULL, 0, 0);
    return leave(result);
}

EXPORT int posix_fallocate(int fd, off_t from, off_t length) {
    return fallocate(fd, 0, from, length) == 0 ? 0 : errno;
}

EXPORT void *mmap(void *at, size_t length, int protects, int flags, int fd, off_t from) {
    if (mark(fd) && (protects & PROT_WRITE) && (flags & MAP_SHARED))
        die("a watched file is mapped for writing: what is written there cannot be seen");
    return (void *)syscall(SYS_mmap, at, length, protects, flags, fd, from);
}

EXPORT ssize_t sendfile(int to, int from, off_t *at, size_t length) {
    if (mark(to)) die("sendfile into a watched file");
    return syscall(SYS_sendfile, to, from, at, length);
}

EXPORT ssize_t splice(int from, off64_t *at, int to, off64_t *to_at, size_t length, unsigned flags) {
    if (mark(to)) die("splice into a watched file");
    return syscall(SYS_splice, from, at, to, to_at, length, flags);
}

EXPORT ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *to_at, size_t length, unsigned flags) {
    if (mark(to)) die("copy_file_range into a watched file");
    return syscall(SYS_copy_file_range, from, at, to, to_at, length, flags);
}

/* ---- Syncing ----------------------------------------------------------------------------------- */

static int sync_watched(int fd, uint64_t inode, long call) {
    pthread_mutex_lock(&lock);
    enter();
    uint64_t token = ++tokens, fails = control->sync_fails, delay = control->sync_delay;
    if (fails) control->sync_fails = fails - 1;
    note(SYNC, inode, 0, token, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    /* Others write meanwhile: the sync does not cover that. */
    if (delay) {
        struct timespec wait = {delay / 1000, delay % 1000 * 1000000};
        while (syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &wait, &wait) != 0) {}
    }
    int result = fails ? -1 : syscall(call, fd);
    int error = fails ? EIO : errno;
    pthread_mutex_lock(&lock);
    if (fails) atomic_fetch_add(&control->failed, 1);
    enter();
    note(result == 0 ? SYNCED : SYNC_FAILED, 0, 0, token, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

EXPORT int fsync(int fd) {
    uint64_t inode = mark(fd);
    return inode ? sync_watched(fd, inode, SYS_fsync) : syscall(SYS_fsync, fd);
}

EXPORT int fdatasync(int fd) {
    uint64_t inode = mark(fd);
    return inode ? sync_watched(fd, inode, SYS_fdatasync) : syscall(SYS_fdatasync, fd);
}

EXPORT int sync_file_range(int fd, off64_t from, off64_t length, unsigned flags) {
    if (mark(fd)) {
        pthread_mutex_lock(&lock);
        enter();
        pthread_mutex_unlock(&lock);
    }
    return syscall(SYS_sync_file_range, fd, from, length, flags);
}

EXPORT int syncfs(int fd) {
    if (mark(fd)) die("syncfs on a watched file");
    return syscall(SYS_syncfs, fd);
}

EXPORT int msync(void *at, size_t length, int flags) { return syscall(SYS_msync, at, length, flags); }

/* ---- Names ------------------------------------------------------------------------------------- */

static int rename_any(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    struct place old = place_of(from_at, from), new = place_of(to_at, to);
    if (!old.directory && !new.directory) return syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (!old.directory || !new.directory) die("a rename into or out of the watched directory");
    if (flags) die("a rename with flags");
    pthread_mutex_lock(&lock);
    enter();
    if (control->refuse) return leave(refused((int)control->refuse));
    int result = syscall(SYS_renameat2, from_at, from, to_at, to, 0);
    if (result == 0) {
        struct iovec both[] = {{old.name, old.length + 1}, {new.name, new.length}};
        note(RENAMED, 0, old.directory, new.directory, both, 2, old.length + 1 + new.length);
    }
    return leave(result);
}

EXPORT int rename(const char *from, const char *to) {
    return rename_any(AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int renameat(int from_at, const char *from, int to_at, const char *to) {
    return rename_any(from_at, from, to_at, to, 0);
}

EXPORT int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    return rename_any(from_at, from, to_at, to, flags);
}

EXPORT int unlinkat(int at, const char *path, int flags) {
    struct place place = place_of(at, path);
    if (!place.directory) return syscall(SYS_unlinkat, at, path, flags);
    pthread_mutex_lock(&lock);
    enter();
    if (control->refuse) return leave(refused((int)control->refuse));
    int result = syscall(SYS_unlinkat, at, path, flags);
    if (result == 0) note_name(REMOVED, 0, place.directory, 0, place.name, place.length);
    return leave(result);
}

EXPORT int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

EXPORT int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

EXPORT int remove(const char *path) {
    int result = unlinkat(AT_FDCWD, path, 0);
    return result != 0 && errno == EISDIR ? rmdir(path) : result;
}

EXPORT int mkdirat(int at, const char *path, mode_t mode) {
    struct place place = place_of(at, path);
    if (!place.directory) return syscall(SYS_mkdirat, at, path, mode);
    pthread_mutex_lock(&lock);
    enter();
    int error = exists(at, path) ? 0 : why_not(1);
    if (error) return leave(refused(error));
    int result = syscall(SYS_mkdirat, at, path, mode);
    struct stat made;
    if (result == 0 && syscall(SYS_newfstatat, at, path, &made, 0) == 0)
        note_name(CREATED, made.st_ino, place.directory, 1, place.name, place.length);
    return leave(result);
}

EXPORT int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

EXPORT int linkat(int from_at, const char *from, int at, const char *path, int flags) {
    struct place place = place_of(at, path);
    if (!place.directory) return syscall(SYS_linkat, from_at, from, at, path, flags);
    pthread_mutex_lock(&lock);
    enter();
    int error = why_not(1);
    if (error) return leave(refused(error));
    int result = syscall(SYS_linkat, from_at, from, at, path, flags);
    struct stat made;
    if (result == 0 && syscall(SYS_newfstatat, at, path, &made, AT_SYMLINK_NOFOLLOW) == 0)
        note_name(LINKED, made.st_ino, place.directory, 0, place.name, place.length);
    return leave(result);
}

EXPORT int link(const char *from, const char *path) { return linkat(AT_FDCWD, from, AT_FDCWD, path, 0); }

EXPORT int symlinkat(const char *to, int at, const char *path) {
    struct place place = place_of(at, path);
    if (!place.directory) return syscall(SYS_symlinkat, to, at, path);
    pthread_mutex_lock(&lock);
    enter();
    int error = why_not(1);
    if (error) return leave(refused(error));
    int result = syscall(SYS_symlinkat, to, at, path);
    struct stat made;
    if (result == 0 && syscall(SYS_newfstatat, at, path, &made, AT_SYMLINK_NOFOLLOW) == 0) {
        char name[NAME_MAX + 1] = {0};
        memcpy(name, place.name, place.length < NAME_MAX ? place.length : NAME_MAX);
        struct iovec both[] = {{name, place.length + 1}, {(void *)to, strlen(to)}};
        note(POINTED, made.st_ino, place.directory, 0, both, 2, place.length + 1 + strlen(to));
    }
    return leave(result);
}

EXPORT int symlink(const char *to, const char *path) { return symlinkat(to, AT_FDCWD, path); }

/* ---- The wall clock ---------------------------------------------------------------------------- */

static int64_t step(void) { return control ? control->clock_step : 0; }

static void shift(struct timespec *time, int64_t by_ms) {
    int64_t nanos = time->tv_nsec + by_ms % 1000 * 1000000;
    int64_t carry = nanos < 0 ? -1 : nanos / 1000000000;
    time->tv_sec += by_ms / 1000 + carry;
    time->tv_nsec = nanos - carry * 1000000000;
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = next_clock_gettime ? next_clock_gettime(clock, time) : syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) shift(time, step());
    return result;
}

EXPORT int gettimeofday(struct timeval *time, void *zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

EXPORT time_t time(time_t *into) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}

/* The kernel waits by its own wall clock. */
EXPORT int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    struct timespec real = *until;
    const int64_t long_ago = 1000000000; /* a monotonic clock has not come that far */
    if (real.tv_sec > long_ago) shift(&real, -step());
    return next_timedwait(condition, mutex, &real);
}

/* ---- The same under the names that 64-bit offsets have ------------------------------------------ */

EXPORT int open64(const char *path, int flags, ...) {
    MODE(flags, flags)
    return open_any(AT_FDCWD, path, flags, mode);
}

EXPORT int openat64(int at, const char *path, int flags, ...) {
    MODE(flags, flags)
    return open_any(at, path, flags, mode);
}

#define ALIAS(of) __attribute__((alias(#of), visibility("default")))
int creat64(const char *, mode_t) ALIAS(creat);
int fcntl64(int, int, ...) ALIAS(fcntl);
FILE *fopen64(const char *, const char *) ALIAS(fopen);
ssize_t pwrite64(int, const void *, size_t, off64_t) ALIAS(pwrite);
ssize_t pwritev64(int, const struct iovec *, int, off64_t) ALIAS(pwritev);
ssize_t pwritev64v2(int, const struct iovec *, int, off64_t, int) ALIAS(pwritev2);
int ftruncate64(int, off64_t) ALIAS(ftruncate);
int truncate64(const char *, off64_t) ALIAS(truncate);
int fallocate64(int, int, off64_t, off64_t) ALIAS(fallocate);
int posix_fallocate64(int, off64_t, off64_t) ALIAS(posix_fallocate);
void *mmap64(void *, size_t, int, int, int, off64_t) ALIAS(mmap);
ssize_t sendfile64(int, int, off64_t *, size_t) ALIAS(sendfile);
