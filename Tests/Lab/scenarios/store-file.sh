# Cold memory in a file instead of RAM: the process itself becomes small, the bytes come back
# from the disk.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=300 LAB_DISK=512M
: "${GUEST_MEMORY=256M}"
: "${PAGER=tracker=rwp,store=file,path=/disk/store,size=256M,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

small_enough() { [ "$(guest_ram_rss)" -lt $((filled / 3)) ]; }

guest_start
guest_ask 'fill 50' '^filled ' 90
filled=$(guest_field filled)
pager_set idle-age 3
wait_until 90 "resident guest RAM falls below a third" small_enough
note "RAM: $(guest_ram_rss), process: $(process_rss), in the file: $(pager_stat file-bytes)"
expect_ge "bytes in the file" "$(pager_stat file-bytes)" $((filled / 3))
expect_le "the process without its guest RAM" $(($(process_rss) - $(guest_ram_rss))) $((96 << 20))

pager_set idle-age 3600
guest_verify 180
guest_quit
