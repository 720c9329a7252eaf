/* What a program on a bare Cortex-M needs before main(): a vector table, cleared memory, and, on the
 * M55, permission to use the vector unit. Text and the exit status go to the debugger or the emulator
 * by semihosting; on hardware of your own, put() is your UART.
 */
#include <stdint.h>

int main(void);
void put(const char *text);

extern uint32_t stack_top, bss_start, bss_end; /* board.ld */

static int semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void put(const char *text)
{
    semihost(0x04, text); /* SYS_WRITE0 */
}

static void leave(int status)
{
    const uint32_t block[2] = {0x20026, (uint32_t)status}; /* ADP_Stopped_ApplicationExit */
    for (;;)
        semihost(0x20, block); /* SYS_EXIT_EXTENDED */
}

void reset(void)
{
    for (volatile uint32_t *p = &bss_start; p < &bss_end; ++p)
        *p = 0;
    *(volatile uint32_t *)0xe000ed88 = 0x00f00000; /* CPACR: coprocessors 10 and 11 */
    __asm__ volatile("dsb\n\tisb" ::: "memory");
    leave(main());
}

void fault(void)
{
    put("fault\n");
    leave(99);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top, (void *)reset, (void *)fault, (void *)fault,
    (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};
