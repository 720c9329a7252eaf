/* Classifies images with a library that irc compiled: no Python, no runtime, no floats needed.
 *
 *     main IMAGES.u8
 *
 * IMAGES.u8 holds raw images, NET_INPUT_SIZE bytes each. One line per image on stdout: the class,
 * then every score. The median time of a run goes to stderr.
 */
#define _POSIX_C_SOURCE 199309L /* clock_gettime */

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "net.h"

/* All memory that the network ever needs. C99 has no alignas: take some more and round up. */
static unsigned char memory[NET_WORKSPACE_BYTES + NET_WORKSPACE_ALIGN];

static void *aligned_workspace(void)
{
    uintptr_t address = (uintptr_t)memory;
    return memory + (NET_WORKSPACE_ALIGN - address % NET_WORKSPACE_ALIGN) % NET_WORKSPACE_ALIGN;
}

static int best(const int8_t *scores)
{
    int winner = 0;
    for (int i = 1; i < NET_OUTPUT_SIZE; i++)
        if (scores[i] > scores[winner])
            winner = i;
    return winner;
}

static double microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e6 * (double)now.tv_sec + 1e-3 * (double)now.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The float edge must say the same: what the integers stand for in, real scores out. */
static int float_edge_agrees(const uint8_t *image, const int8_t *scores, void *workspace)
{
    static float inputs[NET_INPUT_SIZE], reals[NET_OUTPUT_SIZE];
    for (int i = 0; i < NET_INPUT_SIZE; i++)
        inputs[i] = (float)(NET_INPUT_SCALE * (image[i] - (NET_INPUT_ZERO_POINT)));
    if (net_run_f32(inputs, reals, workspace) != NET_OK)
        return 0;
    for (int i = 0; i < NET_OUTPUT_SIZE; i++)
        if (reals[i] != (float)(NET_OUTPUT_SCALE * (scores[i] - (NET_OUTPUT_ZERO_POINT))))
            return 0;
    return 1;
}

static int classify(FILE *images, void *workspace, double **times)
{
    static uint8_t image[NET_INPUT_SIZE];
    int8_t scores[NET_OUTPUT_SIZE];
    int count = 0;
    while (fread(image, 1, sizeof image, images) == sizeof image) {
        double *grown = realloc(*times, (size_t)(count + 1) * sizeof **times);
        if (grown == NULL)
            return -1;
        *times = grown;
        double start = microseconds();
        int status = net_run(image, scores, workspace);
        (*times)[count++] = microseconds() - start;
        if (status != NET_OK || !float_edge_agrees(image, scores, workspace))
            return -1;
        printf("%d", best(scores));
        for (int i = 0; i < NET_OUTPUT_SIZE; i++)
            printf(" %d", scores[i]);
        printf("\n");
    }
    return count;
}

int main(int argc, char **argv)
{
    void *workspace = aligned_workspace();
    double *times = NULL;
    FILE *images = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (images == NULL) {
        fprintf(stderr, "usage: %s IMAGES.u8, raw images of %d bytes\n", argv[0], NET_INPUT_SIZE);
        return EXIT_FAILURE;
    }
    if (net_self_test(workspace) != NET_OK) {
        fprintf(stderr, "the library's self test fails on this CPU\n");
        return EXIT_FAILURE;
    }
    int count = classify(images, workspace, &times);
    fclose(images);
    if (count <= 0) {
        fprintf(stderr, "no image, or a run failed\n");
        return EXIT_FAILURE;
    }
    qsort(times, (size_t)count, sizeof *times, ascending);
    fprintf(stderr, "%.1f\n", times[count / 2]);
    free(times);
    return EXIT_SUCCESS;
}
