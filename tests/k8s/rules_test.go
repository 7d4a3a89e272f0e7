package k8s

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A rule returns a line for each violation that it finds.
type rule func(*installation) []string

var rules = map[string]rule{
	"images have a version":                  imagesHaveAVersion,
	"resources are limited":                  resourcesAreLimited,
	"nothing runs with privileges":           nothingRunsWithPrivileges,
	"no pod can call the Kubernetes API":     noPodCanCallTheAPI,
	"probes ask for what the product serves": probesAskForWhatTheProductServes,
	"variables are settings":                 variablesAreSettings,
	"references can be resolved":             referencesCanBeResolved,
	"secrets are references":                 secretsAreReferences,
	"replicas are spread":                    replicasAreSpread,
	"pods stop gracefully":                   podsStopGracefully,
	"a budget covers each Deployment":        aBudgetCoversEachDeployment,
	"policies allow what is needed":          policiesAllowWhatIsNeeded,
	"scaling knows the partitions":           scalingKnowsThePartitions,
	"requests find their way":                requestsFindTheirWay,
}

func TestEveryOverlayFollowsTheRules(t *testing.T) {
	for _, overlay := range overlays {
		built := build(t, overlay)
		for name, check := range rules {
			for _, violation := range check(built) {
				t.Errorf("%s: %s: %s", overlay, name, violation)
			}
		}
	}
}

// forEach applies a check to every container of every pod.
func (i *installation) forEach(check func(pod, *corev1.Container) []string) []string {
	var found []string
	for _, each := range i.pods() {
		for n := range each.spec.Containers {
			for _, violation := range check(each, &each.spec.Containers[n]) {
				found = append(found, each.role+": "+violation)
			}
		}
		if len(each.spec.InitContainers)+len(each.spec.EphemeralContainers) > 0 {
			found = append(found, each.role+": the rules know no containers of this kind")
		}
	}
	return found
}

func imagesHaveAVersion(i *installation) []string {
	return i.forEach(func(_ pod, c *corev1.Container) []string {
		name, digest, hasDigest := strings.Cut(c.Image, "@sha256:")
		_, tag, hasTag := strings.Cut(name[strings.LastIndex(name, "/")+1:], ":")
		if hasDigest && len(digest) == 64 || hasTag && tag != "" && tag != "latest" {
			return nil
		}
		return []string{fmt.Sprintf("the image %s is not a fixed version", c.Image)}
	})
}

func resourcesAreLimited(i *installation) []string {
	return i.forEach(func(_ pod, c *corev1.Container) (found []string) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit, request := c.Resources.Limits[name], c.Resources.Requests[name]
			if limit.IsZero() || request.IsZero() || request.Cmp(limit) > 0 {
				found = append(found, fmt.Sprintf("%s: a request of %s and a limit of %s", name, &request, &limit))
			}
		}
		// Processes that hash passwords start a thread per CPU that Python counts, and count the node's by default.
		if slices.Contains(c.Command, "serve") && !slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool {
			return v.Name == "PYTHON_CPU_COUNT" && v.ValueFrom != nil && v.ValueFrom.ResourceFieldRef != nil &&
				v.ValueFrom.ResourceFieldRef.Resource == "limits.cpu"
		}) {
			found = append(found, "PYTHON_CPU_COUNT is not the CPU limit")
		}
		return found
	})
}

func nothingRunsWithPrivileges(i *installation) []string {
	found := i.forEach(func(p pod, c *corev1.Container) (found []string) {
		complain := func(is bool, what string) {
			if is {
				found = append(found, what)
			}
		}
		of, own := p.spec.SecurityContext, c.SecurityContext
		if of == nil || own == nil {
			return []string{"it has no security context"}
		}
		complain(of.RunAsNonRoot == nil || !*of.RunAsNonRoot, "runAsNonRoot is not true")
		complain(of.RunAsUser == nil || *of.RunAsUser == 0, "runAsUser is root, or the image's choice")
		complain(of.SeccompProfile == nil || of.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault, "no seccomp profile")
		complain(own.RunAsUser != nil || own.RunAsNonRoot != nil, "the container overrides the pod's user")
		complain(own.AllowPrivilegeEscalation == nil || *own.AllowPrivilegeEscalation, "privileges may grow")
		complain(own.Privileged != nil && *own.Privileged, "it is privileged")
		complain(own.ReadOnlyRootFilesystem == nil || !*own.ReadOnlyRootFilesystem, "its file system can be written")
		if own.Capabilities == nil || !slices.Equal(own.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			complain(true, "it keeps capabilities")
		} else {
			added := slices.DeleteFunc(slices.Clone(own.Capabilities.Add), func(c corev1.Capability) bool {
				return p.role == "gateway" && c == "NET_BIND_SERVICE"
			})
			complain(len(added) > 0, fmt.Sprintf("it adds the capabilities %v", added))
		}
		for _, port := range c.Ports {
			complain(port.HostPort != 0, "it takes a port of its node")
		}
		return found
	})
	for _, each := range i.pods() {
		if each.spec.HostNetwork || each.spec.HostPID || each.spec.HostIPC {
			found = append(found, each.role+": it shares a namespace of its node")
		}
		for _, volume := range each.spec.Volumes {
			is := volume.VolumeSource
			if is.ConfigMap == nil && (is.EmptyDir == nil || is.EmptyDir.SizeLimit == nil) {
				found = append(found, fmt.Sprintf("%s: the volume %s is neither a ConfigMap nor limited", each.role, volume.Name))
			}
		}
	}
	for _, each := range i.namespaces {
		if each.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
			found = append(found, "the namespace does not enforce the restricted pod security standard")
		}
	}
	return found
}

func noPodCanCallTheAPI(i *installation) (found []string) {
	isOff := func(value *bool) bool { return value != nil && !*value }
	for _, each := range i.serviceAccounts {
		if !isOff(each.AutomountServiceAccountToken) {
			found = append(found, "the account "+each.Name+" hands out tokens")
		}
	}
	for _, each := range i.pods() {
		if !isOff(each.spec.AutomountServiceAccountToken) {
			found = append(found, each.role+": it mounts a token")
		}
		if !slices.ContainsFunc(i.serviceAccounts, func(a *corev1.ServiceAccount) bool { return a.Name == each.spec.ServiceAccountName }) {
			found = append(found, each.role+": it runs as an account that this build does not create")
		}
		// A variable such as AUTH_PORT=tcp://10.0.0.1:8000, which Kubernetes adds for the service auth, breaks the gateway.
		if !isOff(each.spec.EnableServiceLinks) {
			found = append(found, each.role+": Kubernetes adds variables for services")
		}
	}
	return found
}

var (
	healthPath = regexp.MustCompile(`"(/health/[a-z]+)"`)
	servePort  = regexp.MustCompile(`"--port", default="(\d+)"`)
	hostPort   = regexp.MustCompile(`\{\$GATEWAY_LISTEN:`)
)

// servedBy returns the health paths and the port that a container's process serves, according to its source.
func servedBy(i *installation, c *corev1.Container) (paths []string, port string) {
	from := func(file string) (paths []string) {
		for _, found := range healthPath.FindAllStringSubmatch(read(file), -1) {
			paths = append(paths, found[1])
		}
		return paths
	}
	switch {
	case slices.Contains(c.Command, "caddy") && hostPort.MatchString(read("deploy/Caddyfile")):
		found := regexp.MustCompile(`handle (/gateway/health) \{`).FindStringSubmatch(read("deploy/Caddyfile"))
		return found[1:], strings.TrimPrefix(i.environment(c)["GATEWAY_LISTEN"], ":")
	case slices.Contains(c.Command, "serve"):
		return from("signup_sync/server/health.py"), servePort.FindStringSubmatch(read("signup_sync/management/commands/serve.py"))[1]
	}
	if i.environment(c)["HEALTH_HOST"] != "0.0.0.0" {
		return nil, ""
	}
	return from("runtime/processes/health.py"), i.environment(c)["HEALTH_PORT"]
}

func probesAskForWhatTheProductServes(i *installation) []string {
	return i.forEach(func(p pod, c *corev1.Container) (found []string) {
		if p.isJob {
			return nil
		}
		paths, port := servedBy(i, c)
		if len(c.Ports) != 1 || fmt.Sprint(c.Ports[0].ContainerPort) != port {
			found = append(found, fmt.Sprintf("it serves port %s, which is not its only port", port))
		}
		suffixes := map[string]string{"readiness": "ready", "liveness": "live"}
		for name, probe := range map[string]*corev1.Probe{
			"readiness": c.ReadinessProbe, "liveness": c.LivenessProbe, "startup": c.StartupProbe,
		} {
			if probe == nil {
				if name != "startup" {
					found = append(found, "it has no "+name+" probe")
				}
				continue
			}
			get := probe.HTTPGet
			if get == nil || !slices.Contains(paths, get.Path) || get.Port.StrVal != c.Ports[0].Name {
				found = append(found, fmt.Sprintf("the %s probe asks for %v, of which the product serves %v", name, get, paths))
			} else if strings.HasPrefix(get.Path, "/health/") && !strings.HasSuffix(get.Path, suffixes[name]) {
				found = append(found, fmt.Sprintf("the %s probe asks for %s", name, get.Path))
			}
			if probe.TimeoutSeconds < 3 {
				found = append(found, "the "+name+" probe gives up before the product answers, which takes up to 2 s")
			}
		}
		return found
	})
}

func replicasAreSpread(i *installation) (found []string) {
	for _, each := range i.pods() {
		if each.isJob {
			continue
		}
		spread := map[string]bool{}
		for _, constraint := range each.spec.TopologySpreadConstraints {
			if each.matches(constraint.LabelSelector) && slices.Contains(constraint.MatchLabelKeys, "app.kubernetes.io/component") {
				spread[constraint.TopologyKey] = true
			}
		}
		if !spread["kubernetes.io/hostname"] || !spread["topology.kubernetes.io/zone"] {
			found = append(found, each.role+": its replicas may share a node or a zone")
		}
	}
	return found
}

// stopsWithin is the number of seconds that a process needs after SIGTERM (runtime/processes/roles.py), with a margin.
const stopsWithin = 10

func podsStopGracefully(i *installation) []string {
	return i.forEach(func(p pod, c *corev1.Container) (found []string) {
		pause := int64(0)
		if c.Lifecycle != nil && c.Lifecycle.PreStop != nil && c.Lifecycle.PreStop.Sleep != nil {
			pause = c.Lifecycle.PreStop.Sleep.Seconds
		}
		if grace := p.spec.TerminationGracePeriodSeconds; grace == nil || *grace < pause+stopsWithin {
			found = append(found, fmt.Sprintf("it is killed before it has paused for %d s and stopped", pause))
		}
		// Clients find pods by DNS or by the endpoints, which lag behind.
		if !p.isJob && p.labels["kind"] != "worker" && pause < 10 {
			found = append(found, "it stops before its clients have learnt that it leaves")
		}
		return found
	})
}
