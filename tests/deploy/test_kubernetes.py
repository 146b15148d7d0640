"""The manifests of deploy/kubernetes: against the schemas of Kubernetes where it has one, else field by field; and what must agree between
them, with the image and with the server."""
import copy
import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml
from deployed import DEPLOY, documents, image_environment, last_of, option_default, options_of_serve
from serving import ROOT

FOLDER = DEPLOY / "kubernetes"
# docs/kubernetes.md promises all from the first on; the last is the newest that kubernetes-validate has.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
# Resources of others (CRDs), which kubernetes-validate does not know, with the fields that their specification may have here.
FOREIGN = {
    "PodMonitor": {"jobLabel", "selector", "podMetricsEndpoints"},
    "InferencePool": {"selector", "targetPorts", "endpointPickerRef"},
    "HTTPRoute": {"parentRefs", "rules"},
}
NOT_APPLIED = {"kustomization.yaml", "prometheus-adapter.yaml", "open.yaml", "open-podmonitor.yaml"}
LABEL = "app.kubernetes.io/name"


def manifests():
    """{file: [resources]} of all files that are applied."""
    return {path.name: documents(path) for path in sorted(FOLDER.rglob("*.yaml")) if path.name not in NOT_APPLIED}


RESOURCES = [resource for resources in manifests().values() for resource in resources]


def find(kind):
    [found] = [resource for resource in RESOURCES if resource["kind"] == kind]
    return found


def check(resource):
    """Raises what is wrong with it, in each version."""
    for version in VERSIONS:
        kubernetes_validate.validate(resource, version, strict=True)


@pytest.fixture
def deployment():
    return copy.deepcopy(find("Deployment"))


@pytest.fixture
def pod(deployment):
    return deployment["spec"]["template"]["spec"]


@pytest.fixture
def server(pod):
    [container] = pod["containers"]
    return container


def variables(container):
    return {entry["name"]: entry["value"] for entry in container["env"]}


# Each for itself ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("resource", [resource for resource in RESOURCES if resource["kind"] not in FOREIGN], ids=lambda r: r["kind"])
def test_kubernetes_knows_it(resource):
    check(resource)


def test_everything_is_checked():
    kinds = [resource["kind"] for resource in RESOURCES]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "Secret"} | set(FOREIGN)
    for kind in FOREIGN:
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            check(find(kind))


@pytest.mark.parametrize("spoil", [
    lambda d: d["spec"]["template"]["spec"]["containers"][0].update(readynessProbe={}),
    lambda d: d["spec"]["template"]["spec"]["containers"][0]["startupProbe"].update(failureThreshold="many"),
    lambda d: d["spec"].pop("selector"),
    lambda d: d["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"].update(drop="ALL"),
    lambda d: d["spec"]["template"]["spec"]["securityContext"].update(runAsUser="runnel"),
])
def test_an_error_is_found(deployment, spoil):
    check(deployment)
    spoil(deployment)
    with pytest.raises(kubernetes_validate.ValidationError):
        check(deployment)


def test_resources_of_others_have_the_fields_that_they_know():
    for kind, fields in FOREIGN.items():
        assert set(find(kind)["spec"]) == fields
    pool = find("InferencePool")
    assert pool["apiVersion"] == "inference.networking.k8s.io/v1"
    assert set(pool["spec"]["selector"]) == {"matchLabels"}  # no matchExpressions there
    assert set(pool["spec"]["endpointPickerRef"]) == {"name", "port", "failureMode"}
    assert pool["spec"]["endpointPickerRef"]["failureMode"] in ("FailOpen", "FailClose")
    assert all(set(port) == {"number"} for port in [*pool["spec"]["targetPorts"], pool["spec"]["endpointPickerRef"]["port"]])
    assert find("HTTPRoute")["apiVersion"] == "gateway.networking.k8s.io/v1"
    monitor = find("PodMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert set(monitor["spec"]["podMetricsEndpoints"][0]) == {"port", "path", "interval", "authorization"}


# All together ------------------------------------------------------------------------------------------------------

def test_selectors_find_the_pods(deployment):
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selector = {LABEL: "runnel"}
    assert labels[LABEL] == "runnel"
    assert deployment["spec"]["selector"]["matchLabels"] == selector
    for kind in ("PodDisruptionBudget", "PodMonitor", "InferencePool"):
        assert find(kind)["spec"]["selector"]["matchLabels"] == selector, kind
    assert find("Service")["spec"]["selector"] == selector
    assert find("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == selector
    [spread] = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == selector
    # What llm-d's router reads.
    assert labels["llm-d.ai/engine-type"] == "vllm"


def test_the_port_is_the_image_s(server):
    [port] = server["ports"]
    assert port == {"name": "http", "containerPort": int(image_environment()["RUNNEL_PORT"])}
    assert "RUNNEL_PORT" not in variables(server)
    assert [entry["targetPort"] for entry in find("Service")["spec"]["ports"]] == ["http"]
    assert find("PodMonitor")["spec"]["podMetricsEndpoints"][0]["port"] == "http"
    assert find("InferencePool")["spec"]["targetPorts"] == [{"number": port["containerPort"]}]
    [ingress] = find("NetworkPolicy")["spec"]["ingress"]
    assert ingress["ports"] == [{"port": "http", "protocol": "TCP"}]
    assert all(server[probe]["httpGet"] == {"path": "/health", "port": "http"} for probe in ("startupProbe", "readinessProbe", "livenessProbe"))


def test_resources_name_each_other():
    target = find("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    deployment = find("Deployment")
    assert (target["kind"], target["name"], target["apiVersion"]) == ("Deployment", deployment["metadata"]["name"], deployment["apiVersion"])
    assert "replicas" not in deployment["spec"]
    [rule] = find("HTTPRoute")["spec"]["rules"]
    [backend] = rule["backendRefs"]
    pool = find("InferencePool")
    assert backend == {"group": pool["apiVersion"].split("/")[0], "kind": "InferencePool", "name": pool["metadata"]["name"]}


def test_keys_are_where_the_server_and_prometheus_look(pod, server):
    secret = find("Secret")
    [volume] = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "keys"]
    [item] = volume["items"]
    [mount] = [mount for mount in server["volumeMounts"] if mount["name"] == "keys"]
    assert volume["secretName"] == secret["metadata"]["name"]
    assert variables(server)["RUNNEL_API_KEY_FILE"] == f"{mount['mountPath']}/{item['path']}"
    # The group may read it, which is the pod's.
    assert volume["defaultMode"] == 0o440 and pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    credentials = find("PodMonitor")["spec"]["podMetricsEndpoints"][0]["authorization"]["credentials"]
    assert credentials["name"] == secret["metadata"]["name"]
    assert secret["stringData"][credentials["key"]] in secret["stringData"][item["key"]].splitlines()


def test_one_model_is_pulled_labelled_and_served(deployment, pod, server):
    [pull] = pod["initContainers"]
    model = variables(server)["RUNNEL_MODEL"]
    assert pull["args"] == ["pull", model]
    assert deployment["spec"]["template"]["metadata"]["labels"]["llm-d.ai/model"] == model
    assert re.search(rf"^{re.escape(model)}\t", (ROOT / "models.tsv").read_text(), re.M)
    for container in (pull, server):
        [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
        assert mount["mountPath"] == image_environment()["RUNNEL_MODELS"]
        assert mount.get("readOnly", False) == (container is server)


def test_variables_are_options(server):
    known = {"RUNNEL_" + option.upper().replace("-", "_") for option in options_of_serve()}
    assert set(variables(server)) <= known
    assert server["args"] == ["serve"] and "command" not in server


def test_pods_are_locked_in(pod, server):
    user, group = map(int, last_of("USER").split(":"))
    security = pod["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (user, group)
    assert security["runAsNonRoot"] is True and security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # or a Service of this name puts RUNNEL_PORT=tcp://... into the environment
    for container in [*pod["initContainers"], server]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                                "capabilities": {"drop": ["ALL"]}}
        assert container["image"] == "runnel"
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


def test_ends_have_the_time_that_they_take(pod, server):
    """The pod is killed after terminationGracePeriodSeconds, which begin before preStop."""
    drain = float(variables(server)["RUNNEL_TIMEOUT_DRAIN"])
    pause = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pause + drain + 5
    assert pause >= 5 and drain >= option_default("timeout-drain")


def test_probes_fit_the_states_of_health(server):
    startup, readiness, liveness = (server[f"{name}Probe"] for name in ("startup", "readiness", "liveness"))
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600  # loading a large model from a slow disk
    assert readiness["periodSeconds"] * readiness["failureThreshold"] <= 10  # wedged, draining: no more requests soon
    # Never before the server itself has said for a while that it is wedged: one slow answer ends nobody.
    assert liveness["periodSeconds"] * (liveness["failureThreshold"] - 1) >= 20
    assert option_default("wedged-s") == 60  # what a comment says
    assert all(probe["timeoutSeconds"] >= 5 for probe in (startup, readiness, liveness))


def bytes_of(text):
    return int(text[:-2]) * {"Mi": 2**20, "Gi": 2**30}[text[-2:]]


def test_resources_are_whole_and_enough(pod, server):
    for container in [*pod["initContainers"], server]:
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert limits["cpu"] == requests["cpu"] and limits["memory"] == requests["memory"]
        assert re.fullmatch(r"\d+", limits["cpu"])
    assert bytes_of(server["resources"]["limits"]["memory"]) >= 3 * 2**30  # 1.7 GB, and a breaker that is not open at once
    [models] = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "models"]
    assert bytes_of(models["sizeLimit"]) < bytes_of(server["resources"]["limits"]["ephemeral-storage"])


# Scaling -----------------------------------------------------------------------------------------------------------

def test_the_autoscaler_asks_for_what_the_adapter_makes_of_what_the_server_has(serve):
    [metric] = find("HorizontalPodAutoscaler")["spec"]["metrics"]
    [adapter] = documents(FOLDER / "prometheus-adapter.yaml")
    [rule] = adapter["rules"]["custom"]
    series = re.search(r'__name__="([^"]+)"', rule["seriesQuery"])[1]
    assert series == "vllm:num_requests_waiting"
    made = re.sub(rule["name"]["matches"], rule["name"]["as"].replace("${1}", r"\1"), series)
    assert metric["type"] == "Pods" and metric["pods"]["metric"] == {"name": made}
    assert ":" not in made
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    assert re.search(rf"^{series}\{{", serve().get("/metrics")[2].decode(), re.M)


def test_the_job_is_the_one_of_the_alerts(deployment):
    """PodMonitor takes it from a label of the pods; alerts.yml asks for it."""
    job = deployment["spec"]["template"]["metadata"]["labels"][find("PodMonitor")["spec"]["jobLabel"]]
    assert set(re.findall(r'job="(\w+)"', (DEPLOY / "prometheus/alerts.yml").read_text())) == {job}


# Kustomize ---------------------------------------------------------------------------------------------------------

def test_kustomizations_name_all_files():
    for folder in ("base", "gateway"):
        [kustomization] = documents(FOLDER / folder / "kustomization.yaml")
        patches = [patch["path"] for patch in kustomization.get("patches", [])]
        assert all(len(documents(FOLDER / folder / path)) == 1 for path in patches)  # older kustomize take one patch a file
        named = kustomization["resources"] + patches
        files = {path.name for path in (FOLDER / folder).iterdir()} - {"kustomization.yaml"}
        assert {name for name in named if not name.startswith("..")} == files
    [kustomization] = documents(FOLDER / "base" / "kustomization.yaml")
    version = re.search(r"project\(runnel VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
    assert kustomization["images"] == [{"name": "runnel", "newName": "registry.example/runnel", "newTag": version}]


def kustomized(folder):
    """What `kubectl apply -k` would apply, by kind."""
    command = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
    if not shutil.which(command[0]):
        pytest.skip("kubectl and kustomize are not installed")
    done = subprocess.run([*command, FOLDER / folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    resources = {resource["kind"]: resource for resource in yaml.safe_load_all(done.stdout)}
    for kind, resource in resources.items():
        if kind not in FOREIGN:
            check(resource)
    return resources


def test_the_base_is_what_the_files_say(deployment):
    resources = kustomized("base")
    [image] = documents(FOLDER / "base" / "kustomization.yaml")[0]["images"]
    for containers in ("containers", "initContainers"):
        for container in deployment["spec"]["template"]["spec"][containers]:
            container["image"] = f"{image['newName']}:{image['newTag']}"
    assert resources.pop("Deployment") == deployment
    assert all(resource == find(kind) for kind, resource in resources.items())
    assert "Secret" not in resources


def test_behind_a_gateway_there_are_no_keys():
    """Nothing is left that would look for them, and without them the server listens only if told so."""
    resources = kustomized("gateway")
    pod = resources["Deployment"]["spec"]["template"]["spec"]
    [server] = pod["containers"]
    before = find("Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert variables(server) == {**{name: value for name, value in variables(before).items() if name != "RUNNEL_API_KEY_FILE"},
                                 "RUNNEL_INSECURE": "yes"}
    assert [mount["name"] for mount in server["volumeMounts"]] == ["models"]
    assert [volume["name"] for volume in pod["volumes"]] == ["models"]
    [endpoint] = resources["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert "authorization" not in endpoint and endpoint["port"] == "http"
    assert {"InferencePool", "HTTPRoute", "NetworkPolicy"} <= set(resources)
