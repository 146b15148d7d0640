/* devices.c: the command `runnel devices`: what a model can be computed on here. One thread. */
#include "base/options.h"
#include "cli/cli.h"
#include "cli/size_text.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

struct devices_settings {
    bool json;
};

static const struct option_spec devices_options[] = {
    {"json", 0, OPTION_FLAG, NULL, "print an array of objects", OPTION_FIELD(struct devices_settings, json)},
};

const struct options_table devices_table = {
    "runnel devices",
    "Lists what a model can be computed on here: the CPU, and GPUs whose drivers show them.", devices_options,
    OPTION_COUNT(devices_options)};

static runnel_device device_at(const runnel_device_list *list, size_t index)
{
    runnel_device device = {.size = sizeof device};
    runnel_devices_get(list, index, &device);
    return device;
}

/* A device's problem, with the option's name. */
static const char *problem_of(const runnel_device *device, runnel_error *renamed)
{
    snprintf(renamed->message, sizeof renamed->message, "%s", device->problem);
    cli_name_gpu_approximate(renamed);
    return renamed->message;
}

/* A driver's text may hold anything. */
static void print_line(const char *label, const char *text)
{
    if (!*text)
        return;
    printf("      %-8s ", label);
    cli_print_text(text, strlen(text));
    putchar('\n');
}

static void print_text(const runnel_device_list *list, size_t n)
{
    char memory[SIZE_TEXT_BYTES];
    runnel_error problem = {0};
    for (size_t i = 0; i < n; i++) {
        const runnel_device device = device_at(list, i);
        printf("%-5s ", device.id);
        cli_print_text(device.name, strlen(device.name));
        putchar('\n');
        print_line("driver", device.driver);
        print_line("memory", device.memory_bytes ? size_text(device.memory_bytes, memory) : "");
        print_line("can", device.can);
        print_line("problem", problem_of(&device, &problem));
    }
}

static int print_json(const runnel_device_list *list, size_t n)
{
    json_t *array = json_array();
    runnel_error problem = {0};
    for (size_t i = 0; i < n; i++) {
        const runnel_device device = device_at(list, i);
        json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:b}", "id", device.id, "name",
                                               device.name, "driver", device.driver, "can", device.can,
                                               "problem", problem_of(&device, &problem), "memory_bytes",
                                               (json_int_t)device.memory_bytes, "is_gpu", device.is_gpu));
    }
    if (json_array_size(array) != n) {
        fprintf(stderr, "runnel: no memory for the list, or a driver's text is no UTF-8\n");
        json_decref(array);
        return EXIT_FAILED;
    }
    json_dumpf(array, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(array);
    return EXIT_DONE;
}

int command_devices(int argc, char **argv)
{
    struct devices_settings settings;
    runnel_device_list *list;
    runnel_error error;
    size_t n;
    int status = cli_read_options(&devices_table, argc, argv, &settings);
    if (status >= 0)
        return status;
    if (runnel_devices(&list, &n, &error))
        return cli_fail(&error);
    status = EXIT_DONE;
    if (settings.json)
        status = print_json(list, n);
    else
        print_text(list, n);
    runnel_devices_free(list);
    return status;
}
