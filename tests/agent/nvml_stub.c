/* A stand-in for libnvidia-ml.so.1, so that NVIDIA's own Python binding runs where there is no GPU.
 *
 * The state lies in the file that VPPD_STUB_NVML names, mapped shared: it outlives the process, as limits outlive the program
 * that set them, and a test changes it from outside as a foreign program would. tests/agent/stub.py knows the same layout.
 * Power follows the limit and the locked clocks; energy is the integral of power.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, MIN_MW = 200000, MAX_MW = 700000, TOP_MHZ = 1980, MOST = 16 };

struct gpu {
    uint32_t limit_mw, low_mhz, high_mhz, demand_mw, error, set_error, sets, locks;
    uint64_t energy_uj, at_ns;
};
struct state {
    uint32_t gpus, stall_ms, no_energy, spare;
    struct gpu gpu[MOST];
};
static struct state *state;

typedef void *device;
typedef struct { unsigned int gpu, memory; } utilization;

static struct gpu *of(device d) { return &state->gpu[(intptr_t)d - 1]; }

static void stall(void)
{
    struct timespec wait = {state->stall_ms / 1000, (state->stall_ms % 1000) * 1000000L};
    if (state->stall_ms)
        nanosleep(&wait, NULL);
}

static uint32_t power_mw(const struct gpu *g)
{
    uint64_t mw = g->demand_mw;
    if (g->high_mhz && g->high_mhz < TOP_MHZ)
        mw = mw * g->high_mhz / TOP_MHZ;
    return mw < g->limit_mw ? (uint32_t)mw : g->limit_mw;
}

static void count(struct gpu *g)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t at = (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
    if (g->at_ns && at > g->at_ns)
        g->energy_uj += power_mw(g) * ((at - g->at_ns) / 1000) / 1000;
    g->at_ns = at;
}

int nvmlInitWithFlags(unsigned int flags)
{
    const char *path = getenv("VPPD_STUB_NVML");
    int file = path ? open(path, O_RDWR) : -1;
    (void)flags;
    if (file < 0)
        return DRIVER_NOT_LOADED;
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return state == MAP_FAILED ? DRIVER_NOT_LOADED : OK;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }
int nvmlDeviceGetCount_v2(unsigned int *n) { stall(); *n = state->gpus; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, device *d)
{
    if (i >= state->gpus)
        return INVALID;
    *d = (device)(intptr_t)(i + 1);
    return (int)of(*d)->error;
}
int nvmlDeviceGetUUID(device d, char *text, unsigned int length)
{
    snprintf(text, length, "GPU-%08x-0000-0000-0000-000000000000", (unsigned)(intptr_t)d - 1);
    return (int)of(d)->error;
}
int nvmlDeviceGetName(device d, char *text, unsigned int length) { snprintf(text, length, "NVIDIA H200"); return (int)of(d)->error; }
int nvmlDeviceGetPowerManagementLimit(device d, unsigned int *mw) { *mw = of(d)->limit_mw; return (int)of(d)->error; }
int nvmlDeviceGetEnforcedPowerLimit(device d, unsigned int *mw) { *mw = of(d)->limit_mw; return (int)of(d)->error; }
int nvmlDeviceGetPowerManagementDefaultLimit(device d, unsigned int *mw) { *mw = MAX_MW; return (int)of(d)->error; }
int nvmlDeviceGetPowerManagementLimitConstraints(device d, unsigned int *low, unsigned int *high)
{
    *low = MIN_MW;
    *high = MAX_MW;
    return (int)of(d)->error;
}
int nvmlDeviceSetPowerManagementLimit(device d, unsigned int mw)
{
    struct gpu *g = of(d);
    stall();
    if (g->error || g->set_error)
        return (int)(g->error ? g->error : g->set_error);
    if (mw < MIN_MW || mw > MAX_MW)
        return INVALID;
    count(g);
    g->limit_mw = mw;
    g->sets++;
    return OK;
}
int nvmlDeviceSetGpuLockedClocks(device d, unsigned int low, unsigned int high)
{
    struct gpu *g = of(d);
    if (g->error || g->set_error)
        return (int)(g->error ? g->error : g->set_error);
    if (low > high || high > TOP_MHZ)
        return INVALID;
    count(g);
    g->low_mhz = low;
    g->high_mhz = high;
    g->locks++;
    return OK;
}
int nvmlDeviceResetGpuLockedClocks(device d)
{
    struct gpu *g = of(d);
    if (g->error || g->set_error)
        return (int)(g->error ? g->error : g->set_error);
    count(g);
    g->low_mhz = g->high_mhz = 0;
    return OK;
}
int nvmlDeviceGetPowerUsage(device d, unsigned int *mw) { stall(); count(of(d)); *mw = power_mw(of(d)); return (int)of(d)->error; }
int nvmlDeviceGetTotalEnergyConsumption(device d, unsigned long long *mj)
{
    count(of(d));
    *mj = of(d)->energy_uj / 1000;
    return state->no_energy ? NOT_SUPPORTED : (int)of(d)->error;
}
int nvmlDeviceGetUtilizationRates(device d, utilization *busy)
{
    busy->gpu = of(d)->demand_mw > 100000 ? 97 : 0;
    busy->memory = 0;
    return (int)of(d)->error;
}
int nvmlDeviceGetTemperature(device d, int sensor, unsigned int *celsius) { (void)sensor; *celsius = 61; return (int)of(d)->error; }
int nvmlDeviceGetTemperatureV(device d, void *of_it) { (void)d; (void)of_it; return NOT_SUPPORTED; }
int nvmlDeviceGetClockInfo(device d, int kind, unsigned int *mhz)
{
    (void)kind;
    *mhz = of(d)->high_mhz ? of(d)->high_mhz : TOP_MHZ;
    return (int)of(d)->error;
}
int nvmlDeviceGetPersistenceMode(device d, unsigned int *on) { *on = 1; return (int)of(d)->error; }
const char *nvmlErrorString(int code) { (void)code; return "stub"; }
