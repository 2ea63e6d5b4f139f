/* Hides AVX-512, VNNI and AMX from one library: an audit library of the dynamic linker, built by without_vnni.py.

   The linker announces each library when it is mapped, before any of its code runs. In the one whose file is called
   LIBRARY, every instruction `cpuid` (2 bytes, at the addresses SITES) becomes `int3; nop`. The trap's handler asks the
   processor itself, and clears the bits that stand for what is hidden. SIGTRAP, because Python's faulthandler takes
   SIGILL for itself. */

#define _GNU_SOURCE
#include <cpuid.h>
#include <link.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define BIT(n) (1u << (n))
#define PAGE 4096ul

static const unsigned long sites[] = {SITES};
static const unsigned char question[2] = {0x0f, 0xa2}, trap[2] = {0xcc, 0x90};
static unsigned long base; /* where the library lies in memory */

static void clear(unsigned part, unsigned *eax, unsigned *ebx, unsigned *ecx, unsigned *edx)
{
    if (part == 0) {
        /* AVX512: F, DQ, IFMA, PF, ER, CD, BW, VL */
        *ebx &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
        /* AVX512: VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
        *ecx &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
        /* AVX512: 4VNNIW, 4FMAPS, VP2INTERSECT, FP16; AMX: BF16, TILE, INT8 */
        *edx &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(23) | BIT(22) | BIT(24) | BIT(25));
    } else if (part == 1) {
        /* AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA */
        *eax &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));
        /* AVX-VNNI-INT8, AVX-NE-CONVERT, AMX-COMPLEX, AVX-VNNI-INT16, AVX10 */
        *edx &= ~(BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19));
    }
}

static int is_ours(unsigned long address)
{
    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++)
        if (base + sites[i] == address)
            return 1;
    return 0;
}

static void answer(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], eax, ebx, ecx, edx;

    (void)info;
    if (!is_ours(registers[REG_RIP] - 1)) { /* somebody else's trap ends the process, as it would without this file */
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    __cpuid_count(leaf, part, eax, ebx, ecx, edx);
    if (leaf == 7)
        clear(part, &eax, &ebx, &ecx, &edx);
    registers[REG_RAX] = eax;
    registers[REG_RBX] = ebx;
    registers[REG_RCX] = ecx;
    registers[REG_RDX] = edx;
}

static void fail(const char *what)
{
    fprintf(stderr, "without_vnni: %s in %s\n", what, LIBRARY);
    abort();
}

static void replace(unsigned long address)
{
    unsigned char *bytes = (unsigned char *)address;
    void *page = (void *)(address & ~(PAGE - 1));
    size_t length = address % PAGE + sizeof trap; /* an instruction may lie across the border of two pages */

    if (memcmp(bytes, question, sizeof question) != 0)
        fail("another instruction where cpuid is expected");
    if (mprotect(page, length, PROT_READ | PROT_WRITE | PROT_EXEC) != 0)
        fail("no permission to replace cpuid");
    memcpy(bytes, trap, sizeof trap);
    mprotect(page, length, PROT_READ | PROT_EXEC);
}

unsigned la_version(unsigned version)
{
    return version;
}

unsigned la_objopen(struct link_map *map, Lmid_t space, uintptr_t *cookie)
{
    const char *slash = strrchr(map->l_name, '/');
    struct sigaction handler = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO};

    (void)space;
    (void)cookie;
    if (strcmp(slash ? slash + 1 : map->l_name, LIBRARY) != 0)
        return 0;
    base = map->l_addr;
    sigaction(SIGTRAP, &handler, NULL);
    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++)
        replace(base + sites[i]);
    return 0;
}
