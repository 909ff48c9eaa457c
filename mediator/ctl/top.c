/* SPDX-License-Identifier: MIT */
/*
 * `vgpuctl top`. Each refresh asks for "list" and shows the difference between the last two answers
 * (figures.c). So the first refresh has nothing to show yet.
 *
 * On a terminal this is a screen that is drawn again at each refresh and each key; an order that a
 * key has chosen holds for the refreshes that follow. Without a terminal, or with --batch or
 * --json, each refresh is printed to stdout, for files and pipes.
 *
 * It ends with `q`, after --count refreshes, or when the mediator does not answer.
 */
#include "mediator/ctl/top.h"

#include <errno.h>
#include <ncurses.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "mediator/ctl/ask.h"
#include "mediator/ctl/figures.h"

#define DEFAULT_ORDER 'p'

struct top {
    const struct top_options *options;
    struct json_object *before, *now; /* answers; what is shown is between them */
    struct figures figures;
    int order;
    const char *problem;
};

/* Takes the next answer. False, and there is a problem, when there is none. */
static bool refresh_figures(struct top *top)
{
    struct json_object *question = ask_question("list");
    struct json_object *answer = ask(top->options->path, question, &top->problem);

    json_object_put(question);
    if (!answer) {
        return false;
    }
    figures_free(&top->figures);
    json_object_put(top->before);
    top->before = top->now;
    top->now = answer;
    if (top->before) {
        figures_make(&top->figures, top->before, top->now);
        figures_sort(&top->figures, top->order);
    }
    return true;
}

/* On stdout -------------------------------------------------------------------------------- */

static void print_tables(const struct figures *figures)
{
    char line[FIGURES_LINE];

    printf("in the last %.3f s; faults so far\n", figures->seconds);
    figures_head(line);
    puts(line);
    for (size_t i = 0; i < figures->count; i++) {
        const struct vm_figures *vm = &figures->vms[i];

        figures_line(vm, NULL, line);
        puts(line);
        for (size_t j = 0; j < vm->worker_count; j++) {
            figures_line(vm, &vm->workers[j], line);
            puts(line);
        }
    }
    puts("");
}

static void print_json(const struct figures *figures)
{
    struct json_object *object = figures_json(figures);

    puts(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN));
    json_object_put(object);
}

/* A signal does not shorten it, such as that of a job that was stopped and goes on. */
static void top_wait_for(double seconds)
{
    const uint64_t ns = (uint64_t)(seconds * 1e9);
    struct timespec left = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};

    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
    }
}

/* False when the mediator is gone. With a count of N it asks N + 1 times. */
static bool run_batch(struct top *top)
{
    const struct top_options *options = top->options;

    if (!refresh_figures(top)) {
        return false;
    }
    for (unsigned long i = 0; options->count == 0 || i < options->count; i++) {
        top_wait_for(options->interval);
        if (!refresh_figures(top)) {
            return false;
        }
        if (options->json) {
            print_json(&top->figures);
        } else {
            print_tables(&top->figures);
        }
        if (fflush(stdout) != 0) {
            break;
        }
    }
    return true;
}

/* On a screen ------------------------------------------------------------------------------ */

/* A line of the screen; what is below it is nowhere. */
static void draw_line(int row, const char *line, chtype attributes)
{
    if (row < LINES) {
        attrset((int)attributes);
        mvaddnstr(row, 0, line, COLS);
        attrset(A_NORMAL);
    }
}

static int draw_pools(struct top *top, int row)
{
    char line[FIGURES_LINE];

    for (size_t i = 0; i < get_length(top->now, "pools"); i++) {
        struct json_object *pool = get_element(top->now, "pools", i);

        if (get_bool(pool, "paused")) {
            snprintf(line, sizeof(line), "pool %s is paused", get_text(pool, "pool"));
            draw_line(row++, line, A_BOLD);
        }
    }
    return row;
}

/* All is drawn anew each time; ncurses sends only the changes to the terminal. */
static void top_draw(struct top *top)
{
    char line[FIGURES_LINE];
    int row = 0;

    erase();
    snprintf(line, sizeof(line), "vgpuctl: computing on %s", get_text(top->now, "computes_on"));
    draw_line(row++, line, A_BOLD);
    if (top->before) {
        snprintf(line, sizeof(line), "in the last %.1f s; faults so far", top->figures.seconds);
    } else {
        snprintf(line, sizeof(line), "measuring for %.1f s", top->options->interval);
    }
    draw_line(row++, line, A_NORMAL);
    draw_line(row++,
              "q quit; sort by p GPU%, m memory, w waits, i in flight, f faults, v VM; upper case: "
              "the other way round",
              A_DIM);
    row = draw_pools(top, row);
    figures_head(line);
    draw_line(row++, line, A_REVERSE);
    for (size_t i = 0; i < top->figures.count; i++) {
        const struct vm_figures *vm = &top->figures.vms[i];

        figures_line(vm, NULL, line);
        draw_line(row++, line, A_BOLD);
        for (size_t j = 0; j < vm->worker_count; j++) {
            figures_line(vm, &vm->workers[j], line);
            draw_line(row++, line, A_NORMAL);
        }
    }
    refresh();
}

/*
 * Draws and listens until the next refresh is due. A key that changes the order draws again, with
 * the figures that are there. False: to be ended.
 */
static bool listen_until(struct top *top, uint64_t due_ns)
{
    for (uint64_t now = clock_ns();; now = clock_ns()) {
        int key;

        top_draw(top);
        if (now >= due_ns) {
            return true;
        }
        /*
         * Rounded up: a rest of less than a millisecond would be a timeout of 0, and this would
         * spin.
         */
        timeout((int)((due_ns - now) / NS_PER_MS) + 1);
        key = getch();
        if (key == 'q' || key == 'Q') {
            return false;
        }
        if (figures_sort(&top->figures, key)) {
            top->order = key;
        }
    }
}

static bool run_screen(struct top *top)
{
    const struct top_options *options = top->options;

    /* One more than the count: the first only measures. */
    for (unsigned long i = 0; options->count == 0 || i <= options->count; i++) {
        if (!refresh_figures(top)) {
            return false;
        }
        if (!listen_until(top, clock_ns() + (uint64_t)(options->interval * 1e9))) {
            break;
        }
    }
    return true;
}

/*
 * Runs on a screen of ncurses. Returns the exit code. The screen is gone when it returns, so a
 * message that is printed afterwards is seen.
 */
static int show_screen(struct top *top)
{
    /* Not initscr(3), which ends the process when it does not know the terminal. */
    SCREEN *screen = newterm(NULL, stdout, stdin);
    bool good;

    if (!screen) {
        const char *terminal = getenv("TERM");

        fprintf(stderr, "vgpuctl: top: the terminal '%s' (TERM) is not known here; use --batch\n",
                terminal ? terminal : "");
        return 2;
    }
    cbreak();
    noecho();
    curs_set(0);
    keypad(stdscr, true);
    good = run_screen(top);
    endwin();
    delscreen(screen);
    return good ? 0 : 3;
}

int top(const struct top_options *options)
{
    struct top top = {.options = options, .order = DEFAULT_ORDER};
    int code;

    /* Keys come from stdin, so that one must be a terminal too. */
    if (options->batch || options->json || !isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO)) {
        code = run_batch(&top) ? 0 : 3;
    } else {
        code = show_screen(&top);
    }
    /* 2 is a terminal that cannot be used, which was told already. */
    if (code == 3) {
        fprintf(stderr, "vgpuctl: top: %s\n", top.problem);
    }
    figures_free(&top.figures);
    json_object_put(top.before);
    json_object_put(top.now);
    return code;
}
