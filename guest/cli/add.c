/* SPDX-License-Identifier: MIT */
/*
 * `vgpu add`: two numbers, two files of numbers, or generated vectors that are checked.
 *
 * Two numbers go in one request of register mode. Files and generated vectors go through the shared
 * memory in pieces (stream.c), with a function that fills in the operands of a piece and one that
 * takes its sums; so files are read into memory as text, but never as numbers all at once.
 *
 * A type that is not given is guessed from the text: numbers are int32 unless one of them has a
 * point, an exponent or a letter. Both operands have the same type.
 *
 * An element of either type is passed about as 32 bits; memcpy() turns it into a float.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "guest/cli/cli.h"

static const char separators[] = ", \t\r\n;";

struct add_options {
    const char *file_a;  /* --file */
    const char *out;     /* -o */
    uint64_t n;          /* --n */
    bool check;          /* --check */
    enum vgpu_type type; /* 0: as the numbers look */
};

static void print_element(FILE *out, enum vgpu_type type, uint32_t element)
{
    if (type == VGPU_TYPE_INT32) {
        fprintf(out, "%" PRId32, (int32_t)element);
    } else {
        float value;

        memcpy(&value, &element, sizeof(value));
        /* With 9 digits a float32 is the same when it is read again. */
        fprintf(out, "%.9g", (double)value);
    }
}

/*
 * Reads the number at `text`. Returns where it ends, or NULL when there is none of this type: a
 * number ends at a separator or with the text, so that "12abc" and, for int32, "1.5" are none.
 */
static const char *parse_element(const char *text, enum vgpu_type type, uint32_t *element)
{
    char *end;

    errno = 0;
    if (type == VGPU_TYPE_INT32) {
        const long value = strtol(text, &end, 10);

        if (errno != 0 || value < INT32_MIN || value > INT32_MAX) {
            return NULL;
        }
        *element = (uint32_t)value;
    } else {
        const float value = strtof(text, &end);

        memcpy(element, &value, sizeof(*element));
    }
    if (end == text || (*end != '\0' && !strchr(separators, *end))) {
        return NULL;
    }
    return end;
}

/* Letters too: "nan", "inf" and hexadecimal floats are no integers either. */
static enum vgpu_type guess_type(const char *text)
{
    return strpbrk(text, ".eEnNiIxXpP") ? VGPU_TYPE_FLOAT32 : VGPU_TYPE_INT32;
}

/* Two numbers --------------------------------------------------------------------- */

static int add_numbers(struct vgpu *vgpu, enum vgpu_type type, const char *a, const char *b)
{
    uint32_t operands[2], sum;
    const char *const texts[2] = {a, b};
    int r;

    /* One float is enough to make both floats. */
    if (type == 0) {
        type = guess_type(a) == VGPU_TYPE_INT32 ? guess_type(b) : VGPU_TYPE_FLOAT32;
    }
    for (unsigned i = 0; i < 2; i++) {
        const char *end = parse_element(texts[i], type, &operands[i]);

        if (!end || *end != '\0') {
            return cli_error(EXIT_USAGE, "'%s' is not a number of type %s", texts[i],
                             type == VGPU_TYPE_INT32 ? "int32" : "float32");
        }
    }
    r = vgpu_add(vgpu, type, 1, &operands[0], &operands[1], &sum);
    if (r != VGPU_OK) {
        return cli_fail(r);
    }
    print_element(stdout, type, sum);
    putchar('\n');
    return EXIT_OK;
}

/* Files --------------------------------------------------------------------------- */

struct number_file {
    const char *name;
    char *text;
    const char *next; /* where the next number or its separators begin */
};

struct file_job {
    enum vgpu_type type;
    struct number_file a, b;
    const char *shape; /* what of a's text has been written out, but for its numbers */
    FILE *out;
};

/*
 * Reads the whole stream, whose length is not known: it may be a pipe. -1 when memory or the stream
 * fails. The caller frees the text that was read, also after an error.
 */
static int vectors_read_stream(struct number_file *file, FILE *f)
{
    size_t size = 65536, length = 0, n;
    char *text = malloc(size);

    while (text) {
        n = fread(text + length, 1, size - 1 - length, f);
        length += n;
        file->text = text;
        /* The end or an error; ferror() tells which. */
        if (n == 0) {
            text[length] = '\0';
            file->next = text;
            return ferror(f) ? -1 : 0;
        }
        if (length == size - 1) {
            size *= 2;
            text = realloc(text, size);
        }
    }
    return -1;
}

static int vectors_read_file(struct number_file *file, const char *name)
{
    FILE *f = strcmp(name, "-") == 0 ? stdin : fopen(name, "re");
    int r;

    file->name = name;
    if (!f) {
        cli_error(EXIT_SYSTEM, "cannot read '%s': %s", name, strerror(errno));
        return EXIT_SYSTEM;
    }
    r = vectors_read_stream(file, f);
    if (f != stdin) {
        fclose(f);
    }
    if (r < 0) {
        cli_error(EXIT_SYSTEM, "cannot read '%s'", name);
        return EXIT_SYSTEM;
    }
    return EXIT_OK;
}

/* Counts by separators alone. Whether these are numbers shows when they are read. */
static uint64_t count_numbers(const char *text)
{
    uint64_t count = 0;

    for (text += strspn(text, separators); *text; text += strspn(text, separators)) {
        count++;
        text += strcspn(text, separators);
    }
    return count;
}

/* Whether the separators before a number leave out another one: 1,,3 or a leading comma. */
static bool empty_field(const struct number_file *file, size_t gap)
{
    /* One comma stands between two numbers, and none before the first. */
    unsigned commas = file->next == file->text ? 1 : 0;

    for (size_t i = 0; i < gap; i++) {
        commas += file->next[i] == ',' || file->next[i] == ';';
    }
    return commas > 1;
}

/*
 * Reads the numbers of a piece, from where the last one ended. Errors name the number by its place
 * in the whole file, counted from 1.
 */
static int parse_piece(struct number_file *file, enum vgpu_type type, uint32_t *elements,
                       const struct cli_piece *piece)
{
    for (uint64_t i = 0; i < piece->count; i++) {
        const size_t gap = strspn(file->next, separators);
        const char *start = file->next + gap;

        if (empty_field(file, gap)) {
            return cli_error(EXIT_USAGE, "'%s': there is an empty field before number %" PRIu64,
                             file->name, piece->first + i + 1);
        }
        file->next = parse_element(start, type, &elements[i]);
        if (!file->next) {
            return cli_error(EXIT_USAGE,
                             "'%s': number %" PRIu64 ", '%.*s', is not a number of "
                             "type %s",
                             file->name, piece->first + i + 1, (int)strcspn(start, separators),
                             start, type == VGPU_TYPE_INT32 ? "int32" : "float32");
        }
    }
    return EXIT_OK;
}

static int fill_from_files(void *context, const struct cli_piece *piece)
{
    struct file_job *job = context;
    const int r = parse_piece(&job->a, job->type, piece->a, piece);

    return r == EXIT_OK ? parse_piece(&job->b, job->type, piece->b, piece) : r;
}

/* The sums take the places that the first file's numbers had, commas and lines kept. */
static int write_sums(void *context, const struct cli_piece *piece)
{
    struct file_job *job = context;

    for (uint64_t i = 0; i < piece->count; i++) {
        const size_t gap = strspn(job->shape, separators);

        fwrite(job->shape, 1, gap, job->out);
        print_element(job->out, job->type, piece->sum[i]);
        job->shape += gap + strcspn(job->shape + gap, separators);
    }
    return ferror(job->out) ? cli_error(EXIT_SYSTEM, "cannot write the sums") : EXIT_OK;
}

static int run_file_job(struct vgpu *vgpu, struct file_job *job)
{
    const uint64_t count = count_numbers(job->a.text);
    const uint64_t count_b = count_numbers(job->b.text);
    struct cli_stream stream = {
        .count = count, .fill = fill_from_files, .take = write_sums, .context = job};
    int r;

    /*
     * Compared before anything is computed, so that no sums are printed of files that do not fit.
     */
    if (count == 0 || count != count_b) {
        return cli_error(EXIT_USAGE,
                         "'%s' has %" PRIu64 " numbers and '%s' has %" PRIu64
                         "; both need the same, at least one",
                         job->a.name, count, job->b.name, count_b);
    }
    if (job->type == 0) {
        job->type = guess_type(job->a.text) == VGPU_TYPE_INT32 ? guess_type(job->b.text)
                                                               : VGPU_TYPE_FLOAT32;
    }
    stream.type = job->type;
    job->shape = job->a.text;
    r = cli_add_stream(vgpu, &stream);
    if (r == EXIT_OK) {
        /* The rest of the text behind the last number, which mostly is a newline. */
        fputs(job->shape, job->out);
    }
    return r;
}

/*
 * Both files are read before the result's is opened, so that it may be one of them. It is emptied
 * when it is opened, and stays so when the numbers turn out to be wrong.
 */
static int add_files(struct vgpu *vgpu, const struct add_options *o, const char *file_b)
{
    struct file_job job = {.type = o->type, .out = stdout};
    int r = vectors_read_file(&job.a, o->file_a);

    if (r == EXIT_OK) {
        r = vectors_read_file(&job.b, file_b);
    }
    if (r == EXIT_OK && o->out) {
        job.out = fopen(o->out, "we");
        if (!job.out) {
            r = cli_error(EXIT_SYSTEM, "cannot write '%s': %s", o->out, strerror(errno));
        }
    }
    if (r == EXIT_OK) {
        r = run_file_job(vgpu, &job);
    }
    /* Closing writes the rest of the buffer, and may fail as any writing does. */
    if (o->out && job.out && fclose(job.out) != 0 && r == EXIT_OK) {
        r = cli_error(EXIT_SYSTEM, "cannot write '%s': %s", o->out, strerror(errno));
    }
    free(job.a.text);
    free(job.b.text);
    return r;
}

/* Generated vectors --------------------------------------------------------------- */

struct check_job {
    enum vgpu_type type;
    uint64_t filled_ns; /* when the operands of the piece were ready */
    uint64_t add_ns;    /* from there to the result, summed */
};

/*
 * Operand number `which` of pair `i`: spread over the type's range, and the same every time, so
 * that the check needs no copy of the operands. The constant is 2^64 divided by the golden ratio,
 * whose multiples are spread evenly.
 */
static uint32_t read_operand(enum vgpu_type type, uint64_t i, uint64_t which)
{
    const uint64_t mixed = (2 * i + which + 1) * UINT64_C(0x9E3779B97F4A7C15);
    const uint32_t bits = (uint32_t)(mixed >> 32);
    float value;
    uint32_t element;

    if (type == VGPU_TYPE_INT32) {
        return bits;
    }
    /* Divided by a power of two: floats with a fraction, of either sign, and never NaN. */
    value = (float)(int32_t)bits / 1024.0F;
    memcpy(&element, &value, sizeof(element));
    return element;
}

/*
 * The host has to give the same bits. int32 wraps, and so this adds without a sign; float32 is IEEE
 * 754 on both sides.
 */
static uint32_t expected_sum(enum vgpu_type type, uint32_t a, uint32_t b)
{
    float x, y;
    uint32_t element;

    if (type == VGPU_TYPE_INT32) {
        return a + b;
    }
    memcpy(&x, &a, sizeof(x));
    memcpy(&y, &b, sizeof(y));
    x += y;
    memcpy(&element, &x, sizeof(element));
    return element;
}

static int fill_generated(void *context, const struct cli_piece *piece)
{
    struct check_job *job = context;

    for (uint64_t i = 0; i < piece->count; i++) {
        piece->a[i] = read_operand(job->type, piece->first + i, 0);
        piece->b[i] = read_operand(job->type, piece->first + i, 1);
        /* What is not a sum, so that one left out is found. */
        piece->sum[i] = ~expected_sum(job->type, piece->a[i], piece->b[i]);
    }
    job->filled_ns = clock_ns();
    return EXIT_OK;
}

static int check_sums(void *context, const struct cli_piece *piece)
{
    struct check_job *job = context;

    job->add_ns += clock_ns() - job->filled_ns;
    for (uint64_t i = 0; i < piece->count; i++) {
        const uint32_t a = read_operand(job->type, piece->first + i, 0);
        const uint32_t b = read_operand(job->type, piece->first + i, 1);

        if (piece->sum[i] != expected_sum(job->type, a, b)) {
            return cli_error(EXIT_WRONG,
                             "pair %" PRIu64 ": the sum is 0x%08" PRIx32 ", must be 0x%08" PRIx32,
                             piece->first + i, piece->sum[i], expected_sum(job->type, a, b));
        }
    }
    return EXIT_OK;
}

static int add_generated(struct vgpu *vgpu, const struct add_options *o)
{
    struct check_job job = {.type = o->type ? o->type : VGPU_TYPE_INT32};
    const struct cli_stream stream = {.type = job.type,
                                      .count = o->n,
                                      .fill = fill_generated,
                                      .take = check_sums,
                                      .context = &job};
    const int r = cli_add_stream(vgpu, &stream);

    if (r == EXIT_OK) {
        printf("%" PRIu64 " %s sums, all correct, in %.3f ms\n", o->n,
               job.type == VGPU_TYPE_INT32 ? "int32" : "float32",
               (double)job.add_ns / (double)NS_PER_MS);
    }
    return r;
}

/* Options ------------------------------------------------------------------------- */

static int usage_error(const char *text)
{
    return cli_error(EXIT_USAGE, "add: %s; 'vgpu --help' shows its forms", text);
}

static int parse_type(const char *text, enum vgpu_type *type)
{
    if (strcmp(text, "int32") == 0) {
        *type = VGPU_TYPE_INT32;
    } else if (strcmp(text, "float32") == 0) {
        *type = VGPU_TYPE_FLOAT32;
    } else {
        return cli_error(EXIT_USAGE, "--type is '%s', must be int32 or float32", text);
    }
    return EXIT_OK;
}

static int parse_count(const char *text, uint64_t *count)
{
    char *end;

    errno = 0;
    *count = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || *count == 0) {
        return cli_error(EXIT_USAGE, "--n is '%s', must be a number of pairs, at least 1", text);
    }
    return EXIT_OK;
}

/* One option; getopt has put its argument into optarg. */
static int take_option(int c, struct add_options *o)
{
    switch (c) {
    case 'f':
        o->file_a = optarg;
        return EXIT_OK;
    case 'o':
        o->out = optarg;
        return EXIT_OK;
    case 'n':
        return parse_count(optarg, &o->n);
    case 'c':
        o->check = true;
        return EXIT_OK;
    case 't':
        return parse_type(optarg, &o->type);
    default:
        return usage_error("unknown option");
    }
}

/* A word that looks like an option but is a negative number: `vgpu add -5 3` is a sum. */
static bool negative_number(const char *word)
{
    return word && word[0] == '-' && ((word[1] >= '0' && word[1] <= '9') || word[1] == '.');
}

int cli_add(struct vgpu *vgpu, int argc, char **argv)
{
    static const struct option longs[] = {
        {"file", required_argument, NULL, 'f'}, {"out", required_argument, NULL, 'o'},
        {"n", required_argument, NULL, 'n'},    {"check", no_argument, NULL, 'c'},
        {"type", required_argument, NULL, 't'}, {NULL, 0, NULL, 0},
    };
    struct add_options o = {0};
    int c, r, words;

    /* 0 has glibc's getopt begin anew: main() has used it for the options before the command. */
    optind = 0;
    /* getopt looks from the second word on; argv[-1] is our command's name. */
    while (!negative_number(argv[optind > 0 ? optind - 1 : 0]) &&
           (c = getopt_long(argc + 1, argv - 1, "+o:", longs, NULL)) != -1) {
        r = take_option(c, &o);
        if (r != EXIT_OK) {
            return r;
        }
    }
    /* Where the first word was a negative number getopt was not called. */
    optind = optind > 0 ? optind : 1;
    argv += optind - 1;
    words = argc - (optind - 1);
    if (o.file_a) {
        /* The second file may be followed by -o. */
        if (words == 3 && strcmp(argv[1], "-o") == 0) {
            o.out = argv[2];
            words = 1;
        }
        return words == 1 ? add_files(vgpu, &o, argv[0]) : usage_error("--file takes two files");
    }
    if (o.n != 0) {
        if (!o.check || words != 0) {
            return usage_error("--n goes with --check and takes no numbers");
        }
        return add_generated(vgpu, &o);
    }
    return words == 2 ? add_numbers(vgpu, o.type, argv[0], argv[1])
                      : usage_error("two numbers are needed");
}
