/* The library on a microcontroller: no heap, no operating system, no C library. */
#include "net.h"
#include "images.h" /* IMAGES, static const uint8_t images[IMAGES][NET_INPUT_SIZE] */

void put(const char *text); /* board.c */

static _Alignas(NET_WORKSPACE_ALIGN) uint8_t workspace[NET_WORKSPACE_BYTES];

static void put_number(int number)
{
    char text[12], *at = text + sizeof text - 1;
    unsigned left = number < 0 ? 0u - (unsigned)number : (unsigned)number;
    *at = 0;
    do
        *--at = (char)('0' + left % 10);
    while (left /= 10);
    if (number < 0)
        *--at = '-';
    put(at);
}

int main(void)
{
    int wrong = net_self_test(workspace);
    put("self test: ");
    put(wrong ? "wrong\n" : "ok\n");
    for (int i = 0; i < IMAGES; ++i) {
        NET_OUTPUT_TYPE scores[NET_OUTPUT_SIZE];
        int best = 0;
        if (net_run(images[i], scores, workspace) != NET_OK)
            return 2;
        put("image ");
        put_number(i);
        put(":");
        for (int k = 0; k < NET_OUTPUT_SIZE; ++k) {
            best = scores[k] > scores[best] ? k : best;
            put(" ");
            put_number(scores[k]);
        }
        put(" -> ");
        put_number(best);
        put("\n");
    }
    return wrong;
}
