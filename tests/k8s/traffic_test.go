package k8s

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

func aBudgetCoversEachDeployment(i *installation) (found []string) {
	for _, each := range i.pods() {
		covering := 0
		for _, budget := range i.budgets {
			if each.matches(budget.Spec.Selector) {
				covering++
				// minAvailable would stop a node from being drained while a role has a single pod.
				if most := budget.Spec.MaxUnavailable; most == nil || most.IntValue() != 1 {
					found = append(found, each.role+": its budget does not let one pod at a time leave")
				}
			}
		}
		if want := map[bool]int{true: 0, false: 1}[each.isJob]; covering != want {
			found = append(found, fmt.Sprintf("%s: %d budgets cover it", each.role, covering))
		}
	}
	return found
}

// opens reports whether a policy lets pods that it selects reach, or be reached by, somebody.
func opens(policy *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) bool {
	if direction == networkingv1.PolicyTypeEgress {
		return len(policy.Spec.Egress) > 0
	}
	return len(policy.Spec.Ingress) > 0
}

func policiesAllowWhatIsNeeded(i *installation) (found []string) {
	isClosed := slices.ContainsFunc(i.policies, func(policy *networkingv1.NetworkPolicy) bool {
		of := policy.Spec.PodSelector
		return len(of.MatchLabels)+len(of.MatchExpressions) == 0 && len(policy.Spec.PolicyTypes) == 2 &&
			!opens(policy, networkingv1.PolicyTypeEgress) && !opens(policy, networkingv1.PolicyTypeIngress)
	})
	if !isClosed {
		found = append(found, "no policy denies everything by default")
	}
	for _, policy := range i.policies {
		for _, rule := range policy.Spec.Ingress {
			if len(rule.From) == 0 || len(rule.Ports) == 0 {
				found = append(found, policy.Name+": it lets anybody in, or to any port")
			}
		}
		for _, rule := range policy.Spec.Egress {
			if len(rule.Ports) == 0 || len(rule.To) == 0 && policy.Name != "scim-servers" {
				found = append(found, policy.Name+": it lets its pods reach anybody, or any port")
			}
		}
		if selected := slices.ContainsFunc(i.pods(), func(p pod) bool { return p.matches(&policy.Spec.PodSelector) }); !selected &&
			len(i.jobs) == 0 {
			found = append(found, policy.Name+": it selects no pod")
		}
	}
	for _, each := range i.pods() {
		environment := i.environment(&each.spec.Containers[0])
		for _, server := range []string{"postgresql", "kafka", "redis", "opensearch"} {
			needs := uses(server, environment)
			if may := i.mayReach(each, server); may != needs {
				found = append(found, fmt.Sprintf("%s: it needs %s: %v; it may reach it: %v", each.role, server, needs, may))
			}
		}
		if !each.isJob && !slices.ContainsFunc(i.policies, func(policy *networkingv1.NetworkPolicy) bool {
			return each.matches(&policy.Spec.PodSelector) && opens(policy, networkingv1.PolicyTypeIngress)
		}) {
			found = append(found, each.role+": nobody may connect to it")
		}
	}
	return found
}

func (i *installation) mayReach(p pod, server string) bool {
	return slices.ContainsFunc(i.policies, func(policy *networkingv1.NetworkPolicy) bool {
		return policy.Name == server && p.matches(&policy.Spec.PodSelector) && opens(policy, networkingv1.PolicyTypeEgress)
	})
}

func (i *installation) scaler(deployment *appsv1.Deployment) *autoscalingv2.HorizontalPodAutoscaler {
	for _, each := range i.scalers {
		if each.Spec.ScaleTargetRef.Kind == "Deployment" && each.Spec.ScaleTargetRef.Name == deployment.Name {
			return each
		}
	}
	return nil
}

func scalingKnowsThePartitions(i *installation) (found []string) {
	for _, each := range i.scalers {
		if !slices.ContainsFunc(i.deployments, func(d *appsv1.Deployment) bool { return i.scaler(d) == each }) {
			found = append(found, each.Name+": it scales no Deployment")
		}
	}
	for _, deployment := range i.deployments {
		scaler, container := i.scaler(deployment), &deployment.Spec.Template.Spec.Containers[0]
		// A fixed number would undo the scaler's decision at each `kubectl apply`.
		if (scaler == nil) == (deployment.Spec.Replicas == nil) {
			found = append(found, deployment.Name+": it has both a scaler and a fixed number of replicas, or neither")
			continue
		}
		partitions := 4 // the default of KAFKA_PARTITIONS
		if text := i.environment(container)["KAFKA_PARTITIONS"]; text != "" {
			partitions, _ = strconv.Atoi(text)
		}
		group := groupOf(container)
		if scaler == nil {
			// A process of scim reads the groups of all SCIM servers, so no group's lag says how many processes are needed.
			if slices.Contains(container.Command, "serve") || group != "" && group != "scim" {
				found = append(found, deployment.Name+": it has no scaler")
			}
			if group != "" && int(*deployment.Spec.Replicas) > partitions {
				found = append(found, deployment.Name+": it has more replicas than partitions")
			}
			continue
		}
		if least := scaler.Spec.MinReplicas; least == nil || *least < 2 || *least > scaler.Spec.MaxReplicas {
			found = append(found, deployment.Name+": a single pod has to do while a node is drained")
		}
		if len(scaler.Spec.Metrics) != 1 {
			found = append(found, deployment.Name+": it is not scaled on one metric")
		} else if group != "" {
			found = append(found, scaledOnLag(scaler, group, partitions)...)
		} else if of := scaler.Spec.Metrics[0].Resource; of == nil || of.Name != corev1.ResourceCPU || of.Target.AverageUtilization == nil {
			found = append(found, deployment.Name+": it is not scaled on its CPU")
		}
	}
	return found
}

var searchGroup = regexp.MustCompile(`(?m)^GROUP: Final = "(\w+)"$`)

// groupOf returns the consumer group that a container's process joins, or "".
func groupOf(c *corev1.Container) string {
	if slices.Contains(c.Command, "index_events") {
		return names(searchGroup, "eventsearch/indexing.py")[0]
	}
	if n := slices.Index(c.Command, "consume_events"); n > 0 {
		return c.Command[n+1]
	}
	return ""
}

func scaledOnLag(scaler *autoscalingv2.HorizontalPodAutoscaler, group string, partitions int) (found []string) {
	if int(scaler.Spec.MaxReplicas) != partitions {
		found = append(found, fmt.Sprintf("%s: at most %d processes for %d partitions", scaler.Name, scaler.Spec.MaxReplicas, partitions))
	}
	of := scaler.Spec.Metrics[0].External
	if of == nil || of.Metric.Selector == nil || of.Target.AverageValue == nil {
		return append(found, scaler.Name+": it is not scaled on lag")
	}
	if of.Metric.Selector.MatchLabels["group"] != group || len(of.Metric.Selector.MatchLabels) != 1 {
		found = append(found, fmt.Sprintf("%s: it is scaled on the lag of %v", scaler.Name, of.Metric.Selector.MatchLabels))
	}
	if !strings.Contains(read("docs/metrics.md"), "| `"+of.Metric.Name+"` | gauge | `topic`, `group` |") {
		found = append(found, scaler.Name+": the product has no metric "+of.Metric.Name)
	}
	return found
}

// From the route to the gateway's service, to its pods, and from these to web and to every instance of auth.
func requestsFindTheirWay(i *installation) (found []string) {
	services := map[string]*corev1.Service{}
	for _, each := range i.services {
		services[each.Name] = each
		if n := len(i.behind(each)); n != 1 {
			found = append(found, fmt.Sprintf("the service %s leads to %d roles", each.Name, n))
		}
	}
	for _, route := range i.routes {
		for _, rule := range route.Spec.Rules {
			if timeouts := rule.Timeouts; timeouts == nil || timeouts.Request == nil || *timeouts.Request != "0s" ||
				timeouts.BackendRequest == nil || *timeouts.BackendRequest != "0s" {
				found = append(found, "the route cuts streams that stay open for 10 minutes")
			}
			for _, backend := range rule.BackendRefs {
				to := services[string(backend.Name)]
				if backend.Name != "gateway" || to == nil || backend.Port == nil || int32(*backend.Port) != to.Spec.Ports[0].Port {
					found = append(found, fmt.Sprintf("the route leads to %s", backend.Name))
				}
			}
		}
	}
	for _, each := range i.deployments {
		container := &each.Spec.Template.Spec.Containers[0]
		environment := i.environment(container)
		if each.Name == "gateway" {
			for _, address := range []string{environment["WEB_UPSTREAM"], environment["AUTH_HOST"] + ":" + environment["AUTH_PORT"]} {
				found = append(found, leadsToPods(i, services, address)...)
			}
			// DNS must list the instances, and not one address for all of them.
			if of := services[environment["AUTH_HOST"]]; of != nil && of.Spec.ClusterIP != corev1.ClusterIPNone {
				found = append(found, "the gateway can't see the instances of auth")
			}
		} else {
			address := strings.TrimPrefix(environment["GATEWAY_URL"], "http://")
			found = append(found, leadsToPods(i, services, address)...)
			host, _, _ := strings.Cut(address, ":")
			if !slices.Contains(strings.Split(environment["ALLOWED_HOSTS"], ","), host) {
				found = append(found, each.Name+": it refuses the requests of the front, which are for "+host)
			}
		}
		if environment["TRUSTED_PROXIES"] == "" {
			found = append(found, each.Name+": everybody would share the proxy's address")
		}
	}
	return found
}

func leadsToPods(i *installation, services map[string]*corev1.Service, address string) []string {
	host, port, _ := strings.Cut(address, ":")
	if of := services[host]; of == nil || fmt.Sprint(of.Spec.Ports[0].Port) != port {
		return []string{address + " is no service of this build"}
	} else if of.Spec.ClusterIP == corev1.ClusterIPNone {
		// The address is a pod's own, where a service's port means nothing.
		for _, each := range i.behind(of) {
			if fmt.Sprint(each.spec.Containers[0].Ports[0].ContainerPort) != port {
				return []string{address + " is not the port of " + each.role}
			}
		}
	}
	return nil
}

func (i *installation) behind(service *corev1.Service) (found []pod) {
	for _, each := range i.pods() {
		isSelected := len(service.Spec.Selector) > 0
		for name, value := range service.Spec.Selector {
			isSelected = isSelected && each.labels[name] == value
		}
		if isSelected {
			found = append(found, each)
		}
	}
	return found
}
