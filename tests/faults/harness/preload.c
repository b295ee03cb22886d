/* Loaded before the program by the fault tests; each variable of the environment switches one fault on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static long countdown = -1; /* allocations until one fails; below 0: none */
static int flush_all, flush_threads, jumping;

static void flush_denormals(void) {
#if defined(__x86_64__)
  unsigned mxcsr;
  __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
  mxcsr |= 1u << 15 | 1u << 6;
  __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
#elif defined(__aarch64__)
  unsigned long fpcr;
  __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
  __asm__ volatile("msr fpcr, %0" : : "r"(fpcr | 1ul << 24));
#endif
}

__attribute__((constructor)) static void begin(void) {
  const char *flush = getenv("FAULT_FLUSH"), *alloc = getenv("FAULT_ALLOC");
  flush_all = flush && !strcmp(flush, "all");
  flush_threads = flush && !strcmp(flush, "threads");
  jumping = getenv("FAULT_CLOCK") != NULL;
  if (alloc) __atomic_store_n(&countdown, atol(alloc), __ATOMIC_SEQ_CST);
  if (flush_all) flush_denormals();
}

/* The wall clock: a day ahead, a day back, an hour, 1970, past 2038. */
int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*system)(clockid_t, struct timespec *);
  static int calls;
  if (!system) system = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = system(clock, time);
  if (jumping && clock == CLOCK_REALTIME && result == 0) {
    switch (__atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST) % 6) {
      case 0: time->tv_sec += 86400; break;
      case 1: time->tv_sec -= 86400; break;
      case 2: time->tv_sec = 5; break;
      case 3: time->tv_sec = 2147483653; break;
      case 4: time->tv_sec += 3600; break;
      default: time->tv_sec -= 3600; break;
    }
  }
  return result;
}

struct start { void *(*body)(void *); void *argument; };

static void *flushing(void *given) {
  struct start start = *(struct start *)given;
  free(given);
  flush_denormals();
  return start.body(start.argument);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
  static int (*system)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  if (!system) system = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create");
  if (!flush_threads) return system(thread, attributes, body, argument);
  struct start *start = malloc(sizeof *start);
  start->body = body;
  start->argument = argument;
  return system(thread, attributes, flushing, start);
}

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);

static int fails(void) {
  if (__atomic_load_n(&countdown, __ATOMIC_SEQ_CST) < 0) return 0;
  return __atomic_fetch_sub(&countdown, 1, __ATOMIC_SEQ_CST) == 1;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return fails() ? NULL : __libc_realloc(old, size); }
int posix_memalign(void **result, size_t alignment, size_t size) {
  if (fails()) return ENOMEM;
  *result = __libc_memalign(alignment, size);
  return *result ? 0 : ENOMEM;
}
