package k8s

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// A plant breaks one thing in a build with all components. The rule must report it, and name what the second word says.
type plant struct {
	rule, says string
	breaks     func(*installation)
}

func (i *installation) pod(role string) pod {
	for _, each := range i.pods() {
		if each.role == role {
			return each
		}
	}
	panic("there is no role " + role)
}

func (i *installation) deployment(name string) *appsv1.Deployment {
	for _, each := range i.deployments {
		if each.Name == name {
			return each
		}
	}
	panic("there is no Deployment " + name)
}

func (i *installation) container(role string) *corev1.Container {
	return &i.pod(role).spec.Containers[0]
}

func set(c *corev1.Container, name, value string) {
	for n := range c.Env {
		if c.Env[n].Name == name {
			c.Env[n] = corev1.EnvVar{Name: name, Value: value}
			return
		}
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: value})
}

func to[T any](value T) *T { return &value }

func without[T any](list []*T, is func(*T) bool) (kept []*T) {
	for _, each := range list {
		if !is(each) {
			kept = append(kept, each)
		}
	}
	return kept
}

func withoutPolicy(name string) func(*installation) {
	return func(i *installation) {
		i.policies = without(i.policies, func(p *networkingv1.NetworkPolicy) bool { return p.Name == name })
	}
}

func withoutScaler(name string) func(*installation) {
	return func(i *installation) {
		of := i.scaler(i.deployment(name))
		i.scalers = without(i.scalers, func(s *autoscalingv2.HorizontalPodAutoscaler) bool { return s == of })
		i.deployment(name).Spec.Replicas = to(int32(2))
	}
}

var plants = []plant{
	{"images have a version", "chat", func(i *installation) { i.container("chat").Image = "signup-sync:latest" }},
	{"images have a version", "chat", func(i *installation) { i.container("chat").Image = "registry.example.org:5000/signup-sync" }},
	{"resources are limited", "memory", func(i *installation) { delete(i.container("relay").Resources.Limits, "memory") }},
	{"resources are limited", "cpu", func(i *installation) {
		i.container("relay").Resources.Requests["cpu"] = resource.MustParse("3")
	}},
	{"resources are limited", "PYTHON_CPU_COUNT", func(i *installation) { set(i.container("auth"), "PYTHON_CPU_COUNT", "64") }},
	{"nothing runs with privileges", "runAsNonRoot", func(i *installation) { i.pod("web").spec.SecurityContext.RunAsNonRoot = nil }},
	{"nothing runs with privileges", "root", func(i *installation) { i.pod("web").spec.SecurityContext.RunAsUser = to(int64(0)) }},
	{"nothing runs with privileges", "overrides", func(i *installation) { i.container("web").SecurityContext.RunAsUser = to(int64(0)) }},
	{"nothing runs with privileges", "written", func(i *installation) {
		i.container("purge").SecurityContext.ReadOnlyRootFilesystem = to(false)
	}},
	{"nothing runs with privileges", "SYS_ADMIN", func(i *installation) {
		i.container("gateway").SecurityContext.Capabilities.Add = []corev1.Capability{"SYS_ADMIN"}
	}},
	{"nothing runs with privileges", "NET_BIND_SERVICE", func(i *installation) {
		i.container("web").SecurityContext.Capabilities.Add = []corev1.Capability{"NET_BIND_SERVICE"}
	}},
	{"nothing runs with privileges", "tmp", func(i *installation) {
		i.pod("web").spec.Volumes[0].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}
	}},
	{"nothing runs with privileges", "namespace", func(i *installation) { i.namespaces[0].Labels = nil }},
	{"no pod can call the Kubernetes API", "token", func(i *installation) { i.pod("chat").spec.AutomountServiceAccountToken = nil }},
	{"no pod can call the Kubernetes API", "account", func(i *installation) { i.pod("chat").spec.ServiceAccountName = "" }},
	{"no pod can call the Kubernetes API", "variables", func(i *installation) { i.pod("gateway").spec.EnableServiceLinks = nil }},
	{"probes ask for what the product serves", "/healthz", func(i *installation) {
		i.container("chat").LivenessProbe.HTTPGet.Path = "/healthz"
	}},
	{"probes ask for what the product serves", "liveness", func(i *installation) {
		i.container("web").LivenessProbe.HTTPGet.Path = "/health/ready"
	}},
	{"probes ask for what the product serves", "port 8001", func(i *installation) { i.container("chat").Ports[0].ContainerPort = 8000 }},
	{"probes ask for what the product serves", "port", func(i *installation) { set(i.container("chat"), "HEALTH_HOST", "127.0.0.1") }},
	{"probes ask for what the product serves", "readiness", func(i *installation) { i.container("gateway").ReadinessProbe = nil }},
	{"probes ask for what the product serves", "2 s", func(i *installation) { i.container("web").ReadinessProbe.TimeoutSeconds = 1 }},
	{"variables are settings", "KAFKA_PARTITION ", func(i *installation) { set(i.container("chat"), "KAFKA_PARTITION", "4") }},
	{"variables are settings", "GATEWAY_LISTN", func(i *installation) { set(i.container("gateway"), "GATEWAY_LISTN", ":80") }},
	{"references can be resolved", "REDIS_URL", func(i *installation) {
		set(i.container("chat"), "REDIS_URL", "rediss://participant:$(REDIS_PASSWORD)@$(REDIS_ADDRESS)/0")
	}},
	{"references can be resolved", "comes before", func(i *installation) {
		env := i.container("chat").Env
		for n := range env {
			if env[n].Name == "CHAT_DATABASE_URL" {
				env[n-1], env[n] = env[n], env[n-1]
			}
		}
	}},
	{"references can be resolved", "volume", func(i *installation) { i.configMaps = i.configMaps[:1] }},
	{"secrets are references", "chat/PASSWORD", func(i *installation) {
		env := i.container("chat").Env
		for n := range env {
			if env[n].ValueFrom != nil {
				env[n].ValueFrom.SecretKeyRef.Key = "PASSWORD"
			}
		}
	}},
	{"secrets are references", "CHAT_DATABASE_PASSWORD", func(i *installation) {
		set(i.container("chat"), "CHAT_DATABASE_PASSWORD", "typed")
	}},
	{"secrets are references", "REDIS_URL", func(i *installation) {
		set(i.container("chat"), "REDIS_URL", "rediss://participant:typed@redis.example.org/0")
	}},
	{"secrets are references", "KAFKA_CLIENT_CONFIG", func(i *installation) {
		set(i.container("chat"), "KAFKA_CLIENT_CONFIG", `{"sasl.username": "chat", "sasl.password": "typed"}`)
	}},
	{"secrets are references", "manifests contain", func(i *installation) {
		i.secrets = append(i.secrets, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "chat"}})
	}},
	{"replicas are spread", "auth", func(i *installation) { i.pod("auth").spec.TopologySpreadConstraints = nil }},
	{"replicas are spread", "auth", func(i *installation) {
		i.pod("auth").spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels = map[string]string{"app": "auth"}
	}},
	{"pods stop gracefully", "killed", func(i *installation) { i.pod("auth").spec.TerminationGracePeriodSeconds = to(int64(20)) }},
	{"pods stop gracefully", "learnt", func(i *installation) { i.container("auth").Lifecycle = nil }},
	{"a budget covers each Deployment", "0 budgets", func(i *installation) {
		i.budgets = without(i.budgets, func(b *policyv1.PodDisruptionBudget) bool { return b.Name == "relay" })
	}},
	{"a budget covers each Deployment", "one pod at a time", func(i *installation) {
		i.budgets[0].Spec.MaxUnavailable, i.budgets[0].Spec.MinAvailable = nil, to(intstr.FromInt32(1))
	}},
	{"policies allow what is needed", "by default", withoutPolicy("deny-by-default")},
	{"policies allow what is needed", "chat: it needs kafka: true", withoutPolicy("kafka")},
	{"policies allow what is needed", "chat: it needs redis: true", func(i *installation) { delete(i.pod("chat").labels, "to-redis") }},
	{"policies allow what is needed", "chat: nobody", withoutPolicy("metrics")},
	{"policies allow what is needed", "chat: it needs postgresql: false", func(i *installation) {
		set(i.container("chat"), "CHAT_DATABASE_URL", "postgres://none@none.invalid/none")
	}},
	{"policies allow what is needed", "search: it needs opensearch: true", withoutPolicy("opensearch")},
	{"policies allow what is needed", "chat: it needs opensearch: false", func(i *installation) {
		i.pod("chat").labels["to-opensearch"] = "allowed"
	}},
	{"policies allow what is needed", "postgresql: it lets its pods reach anybody", func(i *installation) {
		for _, each := range i.policies {
			if each.Name == "postgresql" {
				each.Spec.Egress[0].To = nil
			}
		}
	}},
	{"scaling knows the partitions", "at most 12 processes for 4", func(i *installation) {
		for _, each := range i.configMaps {
			delete(each.Data, "KAFKA_PARTITIONS")
		}
	}},
	{"scaling knows the partitions", "more replicas than partitions", func(i *installation) {
		i.deployment("scim").Spec.Replicas = to(int32(13))
	}},
	{"scaling knows the partitions", "web: it has no scaler", withoutScaler("web")},
	{"scaling knows the partitions", "auth: it has no scaler", withoutScaler("auth")},
	{"scaling knows the partitions", "auth-results: it has no scaler", withoutScaler("auth-results")},
	{"scaling knows the partitions", "chat: it has no scaler", withoutScaler("chat")},
	{"scaling knows the partitions", "customer: it has no scaler", withoutScaler("customer")},
	{"scaling knows the partitions", "search: it has no scaler", withoutScaler("search")},
	{"scaling knows the partitions", "both", func(i *installation) { i.deployment("chat").Spec.Replicas = to(int32(2)) }},
	{"scaling knows the partitions", "metric", func(i *installation) {
		for _, each := range i.scalers {
			if each.Spec.Metrics[0].External != nil {
				each.Spec.Metrics[0].External.Metric.Name = "eventbus_lag"
			}
		}
	}},
	{"scaling knows the partitions", "lag of", func(i *installation) {
		for _, each := range i.scalers {
			if each.Name == "auth-results" {
				each.Spec.Metrics[0].External.Metric.Selector.MatchLabels["group"] = "auth-results"
			}
		}
	}},
	{"scaling knows the partitions", "search: it is scaled on the lag of map[group:chat]", func(i *installation) {
		i.scaler(i.deployment("search")).Spec.Metrics[0].External.Metric.Selector.MatchLabels["group"] = "chat"
	}},
	{"scaling knows the partitions", "single pod", func(i *installation) { i.scalers[0].Spec.MinReplicas = nil }},
	{"requests find their way", "cuts streams", func(i *installation) { i.routes[0].Spec.Rules[0].Timeouts = nil }},
	{"requests find their way", "cuts streams", func(i *installation) {
		i.routes[0].Spec.Rules[0].Timeouts.Request = to(gatewayv1.Duration("60s"))
	}},
	{"requests find their way", "leads to web", func(i *installation) { i.routes[0].Spec.Rules[0].BackendRefs[0].Name = "web" }},
	{"requests find their way", "0 roles", func(i *installation) { i.services[0].Spec.Selector = map[string]string{"app": "auth"} }},
	{"requests find their way", "instances", func(i *installation) {
		for _, each := range i.services {
			each.Spec.ClusterIP = ""
		}
	}},
	{"requests find their way", "refuses", func(i *installation) {
		for _, each := range i.configMaps {
			if _, isThere := each.Data["ALLOWED_HOSTS"]; isThere {
				each.Data["ALLOWED_HOSTS"] = "signup.example.org"
			}
		}
	}},
	{"requests find their way", "share the proxy's address", func(i *installation) {
		for _, each := range i.configMaps {
			delete(each.Data, "TRUSTED_PROXIES")
		}
	}},
}

func TestEachRuleReportsItsViolations(t *testing.T) {
	planted := map[string]bool{}
	for _, each := range plants {
		planted[each.rule] = true
		built := build(t, allRoles)
		each.breaks(built)
		if found := strings.Join(rules[each.rule](built), "\n"); !strings.Contains(found, each.says) {
			t.Errorf("%s: nothing about %q in: %q", each.rule, each.says, found)
		}
	}
	for name := range rules {
		if !planted[name] {
			t.Errorf("nothing is planted for the rule %q", name)
		}
	}
}
