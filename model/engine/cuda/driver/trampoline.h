#ifndef MOCHI_TRAMPOLINE_H
#define MOCHI_TRAMPOLINE_H

// md_status is 0, or CUDA's error of cuInit, or −1 where libcuda.so.1 cannot
// be opened; md_looked_for says under which names it was looked for.
int md_status(void);
const char *md_looked_for(void);

// md_symbol is a function of libcuda.so.1, for what gorgonia.org/cu lacks;
// NULL where there is none.
void *md_symbol(const char *name);

#endif
