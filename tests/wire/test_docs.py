#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What the documents say to type, typed; configurations read; and what they quote, found.

Of each command in a block of the documents, and in the EXAMPLES of man pages: vgpuctl, vgpu and
vgpu-mediator run here, against a mediator with VMs; for others ELSEWHERE has who runs them, or why
nobody does. So a command that is new and unknown here fails.

Tests: README.md, docs/README.md, docs/install.md, docs/libvirt.md, docs/operation.md,
docs/troubleshooting.md, docs/security.md, docs/secure-boot.md, docs/capacity.md, docs/control.md,
docs/man/vgpuctl.8, docs/man/vgpu.1, docs/man/vgpu-mediator.8, docs/man/vgpu-mediator.conf.5"""
import glob
import os
import re
import shlex
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

PAGES = ["README.md"] + sorted(os.path.relpath(path, v.TOP) for path in
                               glob.glob(os.path.join(v.TOP, "docs/*.md")))
MANUALS = sorted(os.path.relpath(path, v.TOP) for path in
                 glob.glob(os.path.join(v.TOP, "docs/man/*.[0-9]")))
# What tests/packages/check-packages does in booted machines, other layers, or nobody.
ELSEWHERE = {
    "./demo": "the layer demo", "./check": "itself",
    "qemu-system-x86_64": "QEMU's options: the qtest and vm layers; tests/vm/test_hotplug.py",
    "LD_PRELOAD=": "the layer preload", "LD_LIBRARY_PATH=": "the install layer",
    "VGPU_HOST=": "wire tests of cuda", "VGPU_VERBOSE=1 ./program": "wire tests of cuda",
    "(qemu)": "tests/vm/test_hotplug.py, tests/qtest/test_migration.py",
    "dpkg-buildpackage": "check-packages", "apt ": "check-packages, by apt-get",
    "systemctl ": "check-packages", "journalctl ": "check-packages",
    "adduser ": "check-packages, by usermod", "meson ": "the layers build and install",
    "scripts/setup": "every layer", "guest/driver/dkms-source": "the layer driver",
    "vgpu-keeper ": "wire tests of survival", "vgpu-worker --probe": "wire tests of requests",
    "curl ": "wire tests of metrics", "cc ": "the install layer",
    "virsh ": "libvirt is not among what is tested; tried by hand",
    "qm ": "not tried, and the page says so", "mokutil ": "Secure Boot is not among what is tested",
    "reboot": "no machine of a test is", "/usr/lib/linux-kbuild": "Secure Boot, likewise",
    "modinfo ": "check-packages", "bpftrace ": "tests/unit, by its probes",
    "nvidia-smi": "NVIDIA's; on a GPU", "tests/programs/": "on a GPU",
}


def read(path):
    with open(os.path.join(v.TOP, path), encoding="utf-8") as file:
        return file.read()


def blocks(page):
    """(language, text) of those between fences."""
    return re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", read(page))


def lines_of(text):
    """Commands, one a line; a backslash at the end joins two, and a prompt is no part of them."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"^(\$|host\$|guest\$|#) ", "", line.strip())
        line = re.sub(r"\s{2,}#.*$", "", line)
        if line:
            yield line


def examples(manual):
    """What stands in its EXAMPLES, without what is not to be filled or is for roff."""
    part = re.search(r"(?ms)^\.SH EXAMPLES\n(.*?)(?=^\.SH )", read(manual))
    for text in re.findall(r"(?ms)^\.nf\n(.*?)^\.fi$", part[1]) if part else ():
        yield text.replace("\\-", "-").replace("\\e", "\\").replace("\\'", "'")


def is_configuration(text):
    return text.lstrip().startswith("[")


def is_command(line):
    return re.match(r"(\./|/|[\w./-]+=\S+ |\(qemu\) |[a-z][\w./-]*( |$))", line) is not None


class Documents(v.TestCase):
    def serve(self):
        """VMs as the pages have them: 7 is web01, and has a session on queue 2."""
        uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
        self.m = self.mediator()
        for number, name in ((7, b"web01"), (8, b"db01")):
            device = v.Device(v.Client(self.m), vm_id=number, shm=8 << 20, queues=4,
                              hello__name=name, hello__uuid=bytes.fromhex(uuid.replace("-", "")))
            self.addCleanup(device.close)
            v.Queue(device, 2).open()

    def configurations(self):
        for page in PAGES:
            for _, text in blocks(page):
                if is_configuration(text):
                    yield page, text
        for manual in MANUALS:
            for text in examples(manual):
                if is_configuration(text):
                    yield manual, text

    def test_configurations(self):
        m = self.mediator()
        count = 0
        for page, text in self.configurations():
            with self.subTest(page=page, text=text):
                # Another host's users, and where a clone is.
                text = text.replace("libvirt-qemu", "nobody")
                with open(m.config, "w", encoding="utf-8") as file:
                    # A part of one may name pools that the whole has.
                    file.write(text + f"\n[mediator]\nworker = {v.WORKER}\n"
                               "[pool A]\ndevices = 100\n[pool B]\ndevices = 101 102\n")
                result = subprocess.run([v.MEDIATOR, "--config", m.config, "--check-config"],
                                        text=True, capture_output=True, timeout=v.PATIENCE,
                                        check=False)
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                count += 1
        self.assertGreaterEqual(count, 7)

    def commands(self):
        for page in PAGES:
            for language, text in blocks(page):
                if language in ("", "sh") and not is_configuration(text):
                    # The try-out is tested by itself.
                    for line in () if "try.conf" in text else lines_of(text):
                        if is_command(line):
                            yield page, line
        for manual in MANUALS:
            for text in examples(manual):
                if not is_configuration(text):
                    for line in lines_of(text):
                        yield manual, line

    def run_line(self, line):
        """With what is built, and this test's sockets; a pipe and all."""
        tools = os.path.join(self.m.dir.name, "tools")
        if not os.path.isdir(tools):
            os.mkdir(tools)
            for name, program, more in (
                    ("vgpuctl", v.VGPUCTL, f'--socket {self.m.control} "$@"'),
                    ("vgpu", v.CLI, f'--socket {self.m.socket} "$@"'),
                    ("vgpu-mediator", v.MEDIATOR, '"$@"'),
                    # Not installed everywhere; its filters are not looked at.
                    ("jq", "cat", "")):
                path = os.path.join(tools, name)
                with open(path, "w", encoding="ascii") as file:
                    file.write(f"#!/bin/sh\nexec {program} {more}\n")
                os.chmod(path, 0o755)
        words = line
        if line.startswith("vgpu-mediator --check-config"):
            words += f" --config {self.m.config}"
        words = words.replace("/run/vgpu/mediator.sock", self.m.socket)
        if line.startswith("vgpuctl top") and "--count" not in line:
            words += " --count 1"
        for name, text in (("a.csv", "1,2,3\n"), ("b.csv", "4,5,6\n")):
            with open(os.path.join(self.m.dir.name, name), "w", encoding="ascii") as file:
                file.write(text)
        return subprocess.run(words, shell=True, text=True, capture_output=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=v.PATIENCE, cwd=self.m.dir.name,
                              env={**os.environ, "PATH": tools + ":" + os.environ["PATH"]})

    def test_commands(self):
        self.serve()
        ran, used = 0, set()
        for page, line in self.commands():
            with self.subTest(page=page, line=line):
                if re.match(r"(vgpuctl|vgpu|vgpu-mediator) ", line):
                    result = self.run_line(line)
                    self.assertEqual((result.returncode, result.stderr), (0, ""))
                    ran += 1
                    # The next one may want them there.
                    self.run_line("vgpuctl resume A; vgpuctl undrain 0")
                    continue
                known = {start for start in ELSEWHERE if line.startswith(start)}
                self.assertTrue(known, f"who runs this? {line}")
                used |= known
        self.assertGreater(ran, 20)
        self.assertEqual(set(ELSEWHERE) - used, set())

    def test_commands_in_the_text(self):
        """Those of vgpuctl in text and tables; what is a stand-in there has a value here."""
        values = {"VM": "7", "QUEUE": "2", "POOL": "A", "GPU": "0", "KEY": "share", "VALUE": "70",
                  "N": "7", "PATH": "/run/vgpu/control.sock"}
        # A command by its name alone, and one that needs more than is here: a keeper.
        names = {"vgpuctl " + name for name in ("show", "set", "drain", "pause", "resume", "end")}
        names |= {"vgpuctl --socket /run/vgpu/control.sock", "vgpuctl upgrade",
                  "vgpuctl set 7 priority"}
        lines = {}
        for page in PAGES:
            for line in re.findall(r"`(vgpuctl [^`]*)`", read(page)):
                if "|" not in line and "..." not in line:
                    lines[" ".join(values.get(word, word) for word in line.split())] = page
        self.assertGreater(len(lines), 15)
        self.serve()
        for line, page in sorted(lines.items()):
            with self.subTest(page=page, line=line):
                result = self.run_line(line.replace("/run/vgpu/control.sock", self.m.control))
                if line not in names:
                    self.assertEqual((result.returncode, result.stderr), (0, ""))
                if shlex.split(line)[1] in ("end", "detach"):
                    self.m.close()
                    self.serve()
                self.run_line("vgpuctl resume A; vgpuctl undrain 0")

    def test_of_the_try_out(self):
        """README's mediator of one's own: its configuration and the three commands."""
        text = next(text for _, text in blocks("README.md") if "try.conf" in text)
        folder = self.mediator().dir.name
        # In one go: what is put in may have the next one's words in it.
        paths = {"/tmp/": folder + "/", "/path/to/clone/build/out": v.OUT, "build/out": v.OUT}
        text = re.sub("/tmp/|(/path/to/clone/)?build/out", lambda match: paths[match[0]], text)
        with open(os.path.join(folder, "try.conf"), "w", encoding="utf-8") as file:
            file.write("\n".join(line for line in text.splitlines() if line[:1] != "$"))
        start, _, *others = [line for line in lines_of("\n".join(
            line for line in text.splitlines() if line[:2] == "$ "))][1:]
        command = shlex.split(start.rstrip("& "))
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as mediator:
            try:
                v.wait_until("it serves", lambda: v.listens(folder + "/control.sock"))
                for line in others:
                    result = subprocess.run(line, shell=True, cwd=folder, text=True, check=False,
                                            capture_output=True, timeout=v.PATIENCE)
                    self.assertEqual((result.returncode, result.stderr), (0, ""), line)
            finally:
                mediator.terminate()

    def test_quoted_messages(self):
        """What the page of symptoms quotes is what programs say."""
        sources = []
        for folder in ("common", "guest", "mediator", "protocol", "qemu", "worker"):
            for path in glob.glob(os.path.join(v.TOP, folder, "**/*.[ch]"), recursive=True):
                sources.append(read(os.path.relpath(path, v.TOP)))
        # Strings that the compiler joins.
        said = re.sub(r'"\s*\n\s*"', "", "\n".join(sources))
        others = {"Failed to connect to", "Permission denied", "No such file or directory", "Bus error",
                  "Failed to connect", "reconnect", "status offline", "CUDA_ERROR"}
        count = 0
        for row in re.findall(r"(?m)^\| (`.*?) \|", read("docs/troubleshooting.md")):
            for quoted in re.findall(r"`([^`]+)`", row):
                for part in re.split(r"\.\.\.|'[^']*'|\bVM 7\b|\b16\b|\b9\b|\bN\b|: |\(|\)", quoted):
                    part = part.strip(" ;,")
                    if len(part) < 12 or any(part.startswith(other) for other in others):
                        continue
                    with self.subTest(part):
                        self.assertTrue(part in said, f"nobody says '{part}'")
                        count += 1
        self.assertGreater(count, 12)

    def test_links(self):
        """Each leads to a file that is there."""
        for page in PAGES + ["NEWS.md", "DESIGN.md", "SECURITY.md", "CONTRIBUTING.md"]:
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", read(page)):
                path = os.path.normpath(os.path.join(os.path.dirname(page), link))
                self.assertTrue(os.path.exists(os.path.join(v.TOP, path)), f"{page}: {link}")
        # And each page is in the index.
        index = read("docs/README.md")
        for page in PAGES[1:]:
            if page != "docs/README.md":
                self.assertTrue(f"({os.path.basename(page)})" in index, page)
        for manual in MANUALS:
            name = os.path.basename(manual).rsplit(".", 1)[0]
            self.assertTrue(f"`{name}`" in index.replace("`man ", "`"), manual)

    def test_manuals(self):
        """Each has what people look for there."""
        for manual in MANUALS:
            heads = re.findall(r"(?m)^\.SH (.*)$", read(manual))
            wanted = {"NAME", "SYNOPSIS", "FILES", "EXAMPLES", "SEE ALSO"}
            if manual.endswith(("1", "8")):
                wanted |= {"EXIT STATUS", "ENVIRONMENT"}
            if manual.endswith("libcuda-vgpu.7"):
                wanted -= {"SYNOPSIS"}
            self.assertEqual(wanted - set(heads), set(), manual)


if __name__ == "__main__":
    v.main()
