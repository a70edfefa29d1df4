//go:build ignore

// An emulated libnvrtc.so.12: its images are of no use but to the emulated
// libcuda.so.1.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { char image[256], log[256]; } program;

int nvrtcVersion(int *major, int *minor) { *major = 12, *minor = 4; return 0; }
const char *nvrtcGetErrorString(int s) { return s == 6 ? "NVRTC_ERROR_COMPILATION" : s ? "NVRTC_ERROR" : "NVRTC_SUCCESS"; }
int nvrtcGetNumSupportedArchs(int *n) { *n = 4; return 0; }
int nvrtcGetSupportedArchs(int *a) { a[0] = 70, a[1] = 75, a[2] = 80, a[3] = 90; return 0; }
int nvrtcCreateProgram(program **p, const char *source, const char *name, int n, const char *const *h, const char *const *i) {
    (void)name, (void)n, (void)h, (void)i;
    *p = calloc(1, sizeof **p);
    if (strstr(source, "#error")) snprintf((*p)->log, sizeof (*p)->log, "mochi.cu(1): error: #error directive");
    return 0;
}
int nvrtcCompileProgram(program *p, int n, const char *const *options) {
    strcpy(p->image, "emulated");
    for (int i = 0; i < n; i++) strncat(strncat(p->image, " ", 2), options[i], 60);
    return p->log[0] ? 6 : 0;
}
int nvrtcDestroyProgram(program **p) { free(*p); *p = NULL; return 0; }
int nvrtcGetProgramLogSize(program *p, size_t *n) { *n = strlen(p->log) + 1; return 0; }
int nvrtcGetProgramLog(program *p, char *s) { strcpy(s, p->log); return 0; }
int nvrtcGetCUBINSize(program *p, size_t *n) { *n = strlen(p->image) + 1; return 0; }
int nvrtcGetCUBIN(program *p, char *s) { strcpy(s, p->image); return 0; }
int nvrtcGetPTXSize(program *p, size_t *n) { *n = strlen(p->image) + 1; return 0; }
int nvrtcGetPTX(program *p, char *s) { strcpy(s, p->image); return 0; }
