#!/bin/bash
# SPDX-License-Identifier: MIT
#
# nvidia-smi does nothing with NVML's documented functions alone.
#
# NVIDIA documents NVML, libnvidia-ml.so.1, as the library beneath nvidia-smi. One would expect a
# library that has what is documented to be enough for `nvidia-smi -L`, which prints a name and a
# UUID. It is not: right after nvmlInitWithFlags() nvidia-smi calls nvmlInternalGetExportTable(),
# which no manual has, for a table by a 16-byte id, the same in releases 535 and 550. Where that is
# not found it never asks for the number of devices, and says something else:
#
#   Mismatch in versions between nvidia-smi and NVML.
#   Are you sure you are using nvidia-smi provided with the driver?
#
# So that message does not always mean two releases. Seen with Debian's nvidia-smi 535.261.03-1 and
# 550.163.01-2 (exit status 255) and a library of nine functions, below, that answer as documented.
#
# Needs apt-get, Debian's archive keys and a C compiler; downloads two packages of `non-free` into a
# temporary folder and installs nothing. Exit status 0: as described, 1: it behaves otherwise.
set -eu

table=c4fe3e6cc98f6c4ea327ee696e12f7c4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"

cat >nvml.c <<'END'
#include <stdio.h>
static int device;
int nvmlInitWithFlags(unsigned flags) { fprintf(stderr, "init %u\n", flags); return 0; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int result) { return result == 0 ? "Success" : "Not Found"; }
int nvmlDeviceGetCount_v2(unsigned *count) { fputs("count\n", stderr); *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **handle)
{
    fprintf(stderr, "device %u\n", i);
    *handle = &device;
    return 0;
}
int nvmlDeviceGetName(void *d, char *to, unsigned size) { return d != &device || snprintf(to, size, "X") < 0; }
int nvmlDeviceGetUUID(void *d, char *to, unsigned size)
{
    return d != &device || snprintf(to, size, "GPU-00000000-0000-0000-0000-000000000001") < 0;
}
int nvmlInternalGetExportTable(const void **table, const unsigned char *id)
{
    fputs("table ", stderr);
    for (int i = 0; i < 16; i++)
        fprintf(stderr, "%02x", id[i]);
    fputc('\n', stderr);
    *table = NULL;
    return 6; /* not found */
}
END
cc -shared -fPIC -o libnvidia-ml.so.1 nvml.c

mkdir -p lists/partial cache/archives/partial
failed=0
for release in bookworm=535.261.03-1 trixie=550.163.01-2; do
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keys] http://deb.debian.org/debian ${release%=*} non-free" >sources
    options="-o Dir::Etc::sourcelist=$folder/sources -o Dir::Etc::sourceparts=-
        -o Dir::State::Lists=$folder/lists -o Dir::Cache=$folder/cache -o APT::Sandbox::User=root"
    apt-get -q $options update >/dev/null
    rm -rf package ./*.deb
    apt-get -q $options download "nvidia-smi=${release#*=}" >/dev/null
    dpkg -x nvidia-smi_*.deb package
    status=0
    LD_LIBRARY_PATH=$folder package/usr/lib/nvidia/current/nvidia-smi -L >out 2>asked || status=$?
    echo "nvidia-smi ${release#*=}: exit status $status; it asked for: $(tr '\n' ',' <asked)"
    grep -q "^init" asked && grep -q "^table $table" asked && ! grep -q -e ^count -e ^device asked &&
        grep -q "Mismatch in versions" out && [ "$status" = 255 ] || failed=1
done
exit "$failed"
