// Threads that help with one job at a time: whoever posts it works on it too, and waits for nobody who has not begun.
//
// Waking a sleeping thread takes a tenth of a millisecond on some machines, as long as many a job. So helpers watch for the next
// job for a while before they sleep, and the poster watches for the last of them to end.

#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() ((void)0)
#endif

typedef void (*Part)(const void* job, int part);

struct State {
    std::atomic<unsigned> newest{0};  // counts jobs
    std::atomic<int> inside{0};       // helpers that look at the job, or work on it
    std::atomic<int> wanted{0};       // how many may; 0 between jobs
    std::atomic<int> next{0};         // the first part that nobody has taken
    std::atomic<int> asleep{0};
    Part part = nullptr;  // null: Python's own job
    const void* job = nullptr;
    int parts = 0;
    std::mutex busy, sleeping;  // busy: there is a job
    std::condition_variable wake;
};

static State* state = new State;
static const auto PATIENCE = std::chrono::microseconds(200);  // how long a helper watches before it sleeps

// Wait until done(), at most so long. -> whether it is
template <class Done> static bool watch(Done done) {
    auto start = std::chrono::steady_clock::now();
    for (;;) {
        for (int looks = 0; looks < 32; looks++) {
            if (done()) return true;
            PAUSE();
        }
        if (std::chrono::steady_clock::now() - start > PATIENCE) return false;
    }
}

static void work() {
    for (int part; (part = state->next.fetch_add(1)) < state->parts;) state->part(state->job, part);
}

static void open_job(Part part, const void* job, int parts, int helpers) {
    state->part = part;
    state->job = job;
    state->parts = parts;
    state->next = 0;
    state->wanted = helpers;
    state->newest++;
    if (state->asleep) {
        std::lock_guard<std::mutex> lock(state->sleeping);
        state->wake.notify_all();
    }
}

static void close_job() {
    state->wanted = 0;
    while (!watch([] { return state->inside == 0; })) sched_yield();
}

extern "C" {

// Work on all parts of a job, with up to so many helpers; alone while there is another job.
void share(Part part, const void* job, int parts, int helpers) {
    if (helpers < 1 || parts < 2 || !state->busy.try_lock()) {
        for (int i = 0; i < parts; i++) part(job, i);
        return;
    }
    open_job(part, job, parts, helpers);
    work();
    close_job();
    state->busy.unlock();
}

// Python's own jobs: be the one who may post (0: there is another job), post it, wait for those who began, and let others post.
int reserve() { return state->busy.try_lock(); }
void post(int helpers) { open_job(nullptr, nullptr, 0, helpers); }
void wait_for_helpers() { close_job(); }
void release() { state->busy.unlock(); }

// A helper's life. It returns for a job of Python's, after which `leave` is called; seen: the newest job so far.
unsigned serve(unsigned seen) {
    for (;;) {
        if (!watch([&] { return state->newest != seen; })) {
            std::unique_lock<std::mutex> lock(state->sleeping);
            state->asleep++;
            state->wake.wait(lock, [&] { return state->newest != seen; });
            state->asleep--;
        }
        seen = state->newest;
        int before = state->inside.fetch_add(1);  // first: who is inside keeps the job open
        if (before < state->wanted) {
            if (!state->part) return seen;
            work();
        }
        state->inside--;
    }
}
void leave() { state->inside--; }

// In a child process, where no helper exists and a lock may never be let go of: begin anew.
void start_anew() { state = new State; }
}
