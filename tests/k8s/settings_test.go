package k8s

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

var (
	setting   = regexp.MustCompile(`(?m)^#?([A-Z][A-Z0-9_]+)=`)
	reference = regexp.MustCompile(`\$\(([A-Za-z0-9_]+)\)`)
	// The gateway's own, in the Caddyfile, and Python's.
	gatewaySetting = regexp.MustCompile(`\{\$([A-Z_]+)[:}]`)
	pythonSettings = []string{"PYTHON_CPU_COUNT"}
	// In README.md: | `name` | `KEY`, `KEY` | ... |
	secretRow = regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ((?:`[A-Z_]+`(?:, )?)+) \\|")
)

// names returns what the first group of a pattern matches in a file.
func names(pattern *regexp.Regexp, file string) (found []string) {
	for _, match := range pattern.FindAllStringSubmatch(read(file), -1) {
		found = append(found, match[1])
	}
	return found
}

// A variable is a setting of the product, of the gateway or of Python, or a part of a setting's value.
func variablesAreSettings(i *installation) []string {
	known := slices.Concat(names(setting, ".env.example"), pythonSettings)
	ofGateway := names(gatewaySetting, "deploy/Caddyfile")
	return i.forEach(func(p pod, c *corev1.Container) (found []string) {
		parts := map[string]bool{}
		for _, variable := range c.Env {
			for _, match := range reference.FindAllStringSubmatch(variable.Value, -1) {
				parts[match[1]] = true
			}
		}
		for name := range i.environment(c) {
			isKnown := slices.Contains(known, name)
			if p.role == "gateway" {
				isKnown = slices.Contains(ofGateway, name)
			}
			// The ConfigMaps go to every role, and not every role uses each part.
			if !isKnown && !parts[name] && !slices.Contains(sharedParts(i), name) {
				found = append(found, name+" is no setting")
			}
		}
		return found
	})
}

// sharedParts returns the variables that become part of some setting of some role.
func sharedParts(i *installation) (parts []string) {
	i.forEach(func(_ pod, c *corev1.Container) []string {
		for _, variable := range c.Env {
			for _, match := range reference.FindAllStringSubmatch(variable.Value, -1) {
				parts = append(parts, match[1])
			}
		}
		return nil
	})
	return append(parts, "GATEWAY_HSTS", "POSTGRES_ADDRESS", "POSTGRES_OPTIONS", "REDIS_ADDRESS", "KAFKA_SASL_MECHANISM",
		"OPENSEARCH_ADDRESS")
}

// Kubernetes leaves a $(NAME) unchanged unless NAME is in envFrom or an earlier variable.
func referencesCanBeResolved(i *installation) []string {
	return i.forEach(func(p pod, c *corev1.Container) (found []string) {
		known := map[string]bool{}
		for _, from := range c.EnvFrom {
			if from.ConfigMapRef == nil || i.configMap(from.ConfigMapRef.Name) == nil {
				found = append(found, "envFrom names no ConfigMap of this build")
				continue
			}
			for name := range i.configMap(from.ConfigMapRef.Name).Data {
				known[name] = true
			}
		}
		for _, variable := range c.Env {
			for _, match := range reference.FindAllStringSubmatch(variable.Value, -1) {
				if !known[match[1]] {
					found = append(found, fmt.Sprintf("%s comes before %s, or that is missing", variable.Name, match[1]))
				}
			}
			if from := variable.ValueFrom; from != nil && from.ConfigMapKeyRef != nil {
				if config := i.configMap(from.ConfigMapKeyRef.Name); config == nil || config.Data[from.ConfigMapKeyRef.Key] == "" {
					found = append(found, fmt.Sprintf("%s comes from a ConfigMap that lacks it", variable.Name))
				}
			}
			known[variable.Name] = true
		}
		for _, volume := range p.spec.Volumes {
			// README.md says how to create this one.
			if volume.ConfigMap != nil && volume.ConfigMap.Name != "server-ca" && i.configMap(volume.ConfigMap.Name) == nil {
				found = append(found, fmt.Sprintf("the volume %s is a ConfigMap that this build lacks", volume.Name))
			}
		}
		return found
	})
}

func secretsAreReferences(i *installation) []string {
	listed := map[string]bool{}
	for _, row := range secretRow.FindAllStringSubmatch(read("deploy/k8s/README.md"), -1) {
		for _, key := range strings.Split(row[2], ", ") {
			listed[row[1]+"/"+strings.Trim(key, "`")] = true
		}
	}
	found := i.forEach(func(_ pod, c *corev1.Container) (found []string) {
		for _, from := range c.EnvFrom {
			if from.SecretRef != nil {
				found = append(found, "envFrom hands it every key of "+from.SecretRef.Name)
			}
		}
		for _, variable := range c.Env {
			if from := variable.ValueFrom; from != nil && from.SecretKeyRef != nil {
				if key := from.SecretKeyRef.Name + "/" + from.SecretKeyRef.Key; !listed[key] {
					found = append(found, "README.md does not list the secret "+key)
				}
			}
		}
		for name, value := range i.environment(c) {
			if leaked := literalSecret(name, value); leaked {
				found = append(found, name+" has a secret as its value")
			}
		}
		return found
	})
	for _, each := range i.secrets {
		found = append(found, "the manifests contain the secret "+each.Name)
	}
	return found
}

var (
	secretName    = regexp.MustCompile(`_PASSWORD$|^SECRET_KEY|^SCIM_TOKENS$|^EMAIL_URL$`)
	secretInValue = regexp.MustCompile(`://[^:@/]*:([^@/]*)@|"sasl\.password": "([^"]*)"`)
	onlyReference = regexp.MustCompile(`^\$\([A-Z_]+\)$`)
)

func literalSecret(name, value string) bool {
	if secretName.MatchString(name) && !onlyReference.MatchString(value) {
		return true
	}
	for _, match := range secretInValue.FindAllStringSubmatch(value, -1) {
		if !onlyReference.MatchString(match[1] + match[2]) {
			return true
		}
	}
	return false
}
