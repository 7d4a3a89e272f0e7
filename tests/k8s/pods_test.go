package k8s

import (
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// A pod is the template of a Deployment or of a Job.
type pod struct {
	role   string
	isJob  bool
	labels map[string]string
	spec   *corev1.PodSpec
}

func (i *installation) pods() []pod {
	var pods []pod
	for _, each := range i.deployments {
		pods = append(pods, pod{each.Name, false, each.Spec.Template.Labels, &each.Spec.Template.Spec})
	}
	for _, each := range i.jobs {
		pods = append(pods, pod{each.Name, true, each.Spec.Template.Labels, &each.Spec.Template.Spec})
	}
	return pods
}

func (p pod) matches(selector *metav1.LabelSelector) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(labels.Set(p.labels))
}

func (i *installation) configMap(name string) *corev1.ConfigMap {
	for _, each := range i.configMaps {
		if each.Name == name {
			return each
		}
	}
	return nil
}

// environment returns the values that the container gets. References are kept, as $(NAME), and so are the names of values
// that come from elsewhere.
func (i *installation) environment(container *corev1.Container) map[string]string {
	values := map[string]string{}
	for _, from := range container.EnvFrom {
		if from.ConfigMapRef != nil {
			if found := i.configMap(from.ConfigMapRef.Name); found != nil {
				for name, value := range found.Data {
					values[name] = value
				}
			}
		}
	}
	for _, variable := range container.Env {
		values[variable.Name] = variable.Value
		if from := variable.ValueFrom; from != nil {
			values[variable.Name] = "$(" + variable.Name + ")"
			if from.ConfigMapKeyRef != nil {
				if found := i.configMap(from.ConfigMapKeyRef.Name); found != nil {
					values[variable.Name] = found.Data[from.ConfigMapKeyRef.Key]
				}
			}
		}
	}
	return values
}

var user = regexp.MustCompile(`://([^:@/]+)(?::[^@]*)?@|"sasl\.username": "([^"]+)"`)

// rights returns the user with which a process reaches each server: of each database, of Kafka and of Redis. A role that
// may not use a database reaches it as `none`.
func rights(environment map[string]string) map[string]string {
	users := map[string]string{}
	for name, value := range environment {
		if strings.HasSuffix(name, "_DATABASE_URL") || name == "REDIS_URL" || name == "KAFKA_CLIENT_CONFIG" {
			if found := user.FindStringSubmatch(value); found != nil {
				users[name] = found[1] + found[2]
			} else {
				users[name] = "none"
			}
		}
	}
	return users
}

// uses reports whether a process with this environment reaches the server.
func uses(server string, environment map[string]string) bool {
	if server == "opensearch" {
		return environment["OPENSEARCH_URL"] != ""
	}
	for name, who := range rights(environment) {
		is := map[string]bool{
			"postgresql": strings.HasSuffix(name, "_DATABASE_URL"),
			"kafka":      name == "KAFKA_CLIENT_CONFIG",
			"redis":      name == "REDIS_URL",
		}
		if is[server] && who != "none" {
			return true
		}
	}
	return false
}
