/*
 * A device-mapper device of one target, so that a scenario can break a disk on demand:
 *   lab dm create NAME "0 SECTORS linear DEVICE 0"
 *   lab dm load NAME "0 SECTORS error"        replaces the table of the running device
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lab.h"

struct request {
    struct dm_ioctl header;
    struct dm_target_spec target;
    char parameters[256];
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

int command_dm(int argc, char **argv)
{
    unsigned long long start, length;
    struct request request;
    int fd, used = 0;

    if (argc != 4) {
        die("dm wants create|load NAME TABLE");
    }
    fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        die("dm: no device mapper: load the module dm-mod");
    }
    if (!strcmp(argv[1], "create")) {
        prepare(&request, argv[2]);
        perform(fd, DM_DEV_CREATE, &request, "create");
    }
    prepare(&request, argv[2]);
    if (sscanf(argv[3], "%llu %llu %15s %n", &start, &length, request.target.target_type,
               &used) != 3 || !used) {
        die("dm: '%s' is no table: START SECTORS TARGET [ARGUMENTS]", argv[3]);
    }
    request.target.sector_start = start;
    request.target.length = length;
    request.header.target_count = 1;
    snprintf(request.parameters, sizeof request.parameters, "%s", argv[3] + used);
    perform(fd, DM_TABLE_LOAD, &request, "load the table");
    prepare(&request, argv[2]);
    perform(fd, DM_DEV_SUSPEND, &request, "resume"); /* without the suspend flag: resumes */
    return 0;
}
