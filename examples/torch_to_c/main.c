/* Classifies images with a network that was trained in PyTorch: no Python, no runtime.
 *
 *     main IMAGES.f32
 *
 * IMAGES.f32 holds normalized images, NET_INPUT_SIZE floats each. One line per image: every score.
 */
#include <stdio.h>

#include "net.h"

/* All memory that the network ever needs. C99 has no alignas: take some more and round up. */
static unsigned char memory[NET_WORKSPACE_BYTES + NET_WORKSPACE_ALIGN];

int main(int argc, char **argv)
{
    static float image[NET_INPUT_SIZE], scores[NET_OUTPUT_SIZE];
    uintptr_t past = (uintptr_t)memory % NET_WORKSPACE_ALIGN;
    void *workspace = memory + (NET_WORKSPACE_ALIGN - past) % NET_WORKSPACE_ALIGN;
    FILE *images = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (images == NULL) {
        fprintf(stderr, "usage: main IMAGES.f32\n");
        return 2;
    }
    if (net_self_test(workspace) != NET_OK) {
        fprintf(stderr, "the library computes wrongly on this machine\n");
        return 1;
    }
    while (fread(image, sizeof image[0], NET_INPUT_SIZE, images) == NET_INPUT_SIZE) {
        if (net_run_f32(image, scores, workspace) != NET_OK)
            return 1;
        for (int i = 0; i < NET_OUTPUT_SIZE; i++)
            printf("%.9g ", (double)scores[i]);
        printf("\n");
    }
    fclose(images);
    return 0;
}
