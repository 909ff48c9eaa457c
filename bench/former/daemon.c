/* SPDX-License-Identifier: MIT */
/* The former path's daemon: sends back what it reads from the socket on descriptor 0. */
#include <stdint.h>
#include <unistd.h>

int main(void)
{
    uint32_t number;

    while (read(STDIN_FILENO, &number, sizeof(number)) == sizeof(number)) {
        if (write(STDIN_FILENO, &number, sizeof(number)) != sizeof(number)) {
            return 1;
        }
    }
    return 0;
}
