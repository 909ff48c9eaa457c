#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What Prometheus and Grafana are given beside the metrics: alerts, a dashboard, the page's names.

Prometheus's own tool reads all of it. Grafana is not in Debian: of the dashboard its queries are
read by that tool, and that each panel has a place.

Tests: packaging/monitoring/alerts.yml, packaging/monitoring/dashboard.json,
packaging/monitoring/scrape.yml, docs/metrics.md, mediator/metrics-page.c"""
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
MONITORING = os.path.join(TOP, "packaging/monitoring")
TESTS = os.path.join(TOP, "tests/wire/monitoring")


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def names_in(text):
    """Metrics' names; a histogram's without what Prometheus puts behind it."""
    return {re.sub(r"_(bucket|sum|count)$", "", name)
            for name in re.findall(r"\bvgpu_[a-z_]*[a-z]\b", text)}


class Monitoring(v.TestCase):
    @classmethod
    def setUpClass(cls):
        # It may be downloaded: that takes as long as it takes.
        cls.tool = subprocess.run([os.path.join(TOP, "tests/lib/promtool"), v.BUILD], text=True,
                                  stdout=subprocess.PIPE, check=True).stdout.strip()

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def promtool(self, *arguments, **keywords):
        result = subprocess.run([self.tool, *arguments], text=True, check=False,
                                capture_output=True, timeout=v.PATIENCE, **keywords)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout

    def dashboard(self):
        return json.loads(read("packaging/monitoring/dashboard.json"))

    def page(self):
        """With all metrics that there are: a GPU's sensors, and a VM with a limit."""
        for name, library in (("driver", "libcuda.so.1"), ("nvml", "libnvidia-ml.so.1")):
            os.symlink(os.path.join(v.OUT, f"tests/stand-in/stand-in-{name}.so"),
                       os.path.join(self.folder.name, library))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        before = dict(os.environ)
        os.environ["LD_LIBRARY_PATH"] = self.folder.name
        try:
            m = self.mediator("[defaults]\nmemory = 300M\n",
                              f"backend = cuda\nmetrics = 127.0.0.1:{port}")
        finally:
            os.environ.clear()
            os.environ.update(before)
        device = v.Device(v.Client(m), vm_id=7, shm=8 << 20, queues=1, hello__name=b'a "VM"\\')
        self.addCleanup(device.close)

        def get():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=v.PATIENCE)
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode("utf-8")
            connection.close()
            return text if "vgpu_gpu_temperature_celsius" in text and 'vm="7"' in text else None
        return v.wait_until("the sensors are read", get)

    def test_names(self):
        """Those that are asked for exist, and those that exist are documented."""
        page = self.page()
        self.promtool("check", "metrics", input=page)
        there = set(re.findall(r"(?m)^# TYPE (\S+) ", page))
        self.assertGreater(len(there), 30)
        documented = set()
        for line in read("docs/metrics.md").splitlines():
            if line.startswith("| `"):
                documented |= names_in(line.split("|")[1])
        self.assertEqual(there, documented)
        for path in ("packaging/monitoring/alerts.yml", "packaging/monitoring/dashboard.json",
                     "tests/wire/monitoring/alerts-test.yml", "docs/metrics.md"):
            self.assertEqual(names_in(read(path)) - there, set(), path)

    def test_labels(self):
        """Selectors and groups name labels that these metrics have, or that Prometheus adds."""
        labels = {}
        for line in self.page().splitlines():
            match = re.match(r"(vgpu_\w+)(?:\{(.*)\})? ", line)
            if match:
                labels.setdefault(match[1], set()).update(
                    re.findall(r'(\w+)="', match[2] or ""))
        every = set().union(*labels.values()) | {"instance", "job", "le", "alertname", "severity"}
        for path in ("packaging/monitoring/alerts.yml", "packaging/monitoring/dashboard.json",
                     "tests/wire/monitoring/alerts-test.yml"):
            text = read(path).replace('\\"', '"')
            for name, inside in re.findall(r"(vgpu_[a-z_]+)\{([^}]*)\}", text):
                used = set(re.findall(r"(\w+)=~?\"", inside)) - {"instance", "job"}
                # One whose label a test leaves out is still another's.
                self.assertEqual(used - labels[name], set(), f"{path}: {name}")
            for inside in re.findall(r"(?:by|on|group_left) \(([^)]*)\)", text):
                self.assertEqual(set(re.findall(r"\w+", inside)) - every, set(), path)

    def test_alerts(self):
        alerts = os.path.join(MONITORING, "alerts.yml")
        told = self.promtool("check", "rules", alerts)
        os.symlink(alerts, os.path.join(self.folder.name, "alerts.yml"))
        test = os.path.join(self.folder.name, "test.yml")
        os.symlink(os.path.join(TESTS, "alerts-test.yml"), test)
        self.promtool("test", "rules", test)
        # Each of them has its line there.
        names = re.findall(r"(?m)^ +- alert: (\w+)$", read("packaging/monitoring/alerts.yml"))
        self.assertIn(f"{len(names)} rules found", told)
        self.assertEqual(sorted(names), sorted(re.findall(
            r'alertname="(\w+)"', read("tests/wire/monitoring/alerts-test.yml"))))

    def test_scraping(self):
        self.promtool("check", "config", os.path.join(MONITORING, "scrape.yml"))

    def test_queries_of_the_dashboard(self):
        """As rules, which Prometheus's tool reads: it has no other command for them."""
        rules = []
        for panel in self.dashboard()["panels"]:
            for target in panel.get("targets", ()):
                query = target["expr"].replace("$__rate_interval", "5m")
                rules.append({"record": f"panel:{panel['id']}:{target['refId']}".lower(),
                              "expr": query})
        self.assertGreater(len(rules), 15)
        path = os.path.join(self.folder.name, "rules.yml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        self.promtool("check", "rules", path)
        known = {variable["name"] for variable in self.dashboard()["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)", read("packaging/monitoring/dashboard.json")))
        self.assertEqual(used - {"__rate_interval", "__all"}, known)

    def test_places_of_the_dashboard(self):
        places, numbers = set(), set()
        for panel in self.dashboard()["panels"]:
            self.assertNotIn(panel["id"], numbers)
            numbers.add(panel["id"])
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24)
            mine = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                    for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(mine & places, panel["title"])
            places |= mine


if __name__ == "__main__":
    v.main()
