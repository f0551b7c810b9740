/*
 * A device-mapper device, so that a scenario can break a disk, or a piece of it, on demand:
 *   lab dm create NAME "0 SECTORS linear DEVICE 0"
 *   lab dm load NAME "0 100 linear DEVICE 0" "100 8 error"
 *   lab dm suspend NAME
 *   lab dm resume NAME
 * "load" replaces the table of the running device. Each target is one argument. While it is
 * suspended, the device answers nothing.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lab.h"

#define TARGETS_MAX 8

struct request {
    struct dm_ioctl header;
    struct {
        struct dm_target_spec spec;
        char parameters[256];
    } targets[TARGETS_MAX];
};

static void prepare(struct request *r, const char *name)
{
    memset(r, 0, sizeof *r);
    r->header.version[0] = DM_VERSION_MAJOR;
    r->header.data_size = sizeof *r;
    r->header.data_start = sizeof r->header;
    snprintf(r->header.name, sizeof r->header.name, "%s", name);
}

static void perform(int fd, unsigned long command, struct request *r, const char *what)
{
    if (ioctl(fd, command, r)) {
        die("dm: %s: %m", what);
    }
}

/* One line of a table: START SECTORS TARGET [ARGUMENTS]. */
static void add_target(struct request *r, const char *line)
{
    struct dm_target_spec *spec = &r->targets[r->header.target_count].spec;
    unsigned long long start, length;
    int used = 0;

    if (r->header.target_count == TARGETS_MAX) {
        die("dm: more than %d targets", TARGETS_MAX);
    }
    if (sscanf(line, "%llu %llu %15s %n", &start, &length, spec->target_type, &used) != 3 ||
        !used) {
        die("dm: '%s' is no target: START SECTORS TARGET [ARGUMENTS]", line);
    }
    spec->sector_start = start;
    spec->length = length;
    spec->next = sizeof r->targets[0];
    snprintf(r->targets[r->header.target_count].parameters, sizeof r->targets[0].parameters, "%s",
             line + used);
    r->header.target_count++;
}

int command_dm(int argc, char **argv)
{
    struct request request;
    int fd;

    bool suspends = argc == 3 && !strcmp(argv[1], "suspend");
    bool resumes = argc == 3 && !strcmp(argv[1], "resume");

    if (argc < 4 && !suspends && !resumes) {
        die("dm wants create|load NAME TARGET… or suspend|resume NAME");
    }
    fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        die("dm: no device mapper: load the module dm-mod");
    }
    if (!strcmp(argv[1], "create")) {
        prepare(&request, argv[2]);
        perform(fd, DM_DEV_CREATE, &request, "create");
    }
    if (!suspends && !resumes) {
        prepare(&request, argv[2]);
        for (int i = 3; i < argc; i++) {
            add_target(&request, argv[i]);
        }
        perform(fd, DM_TABLE_LOAD, &request, "load the table");
    }
    prepare(&request, argv[2]);
    if (suspends) {
        request.header.flags = DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG | DM_NOFLUSH_FLAG;
    }
    perform(fd, DM_DEV_SUSPEND, &request, argv[1]); /* without the suspend flag: resumes */
    return 0;
}
