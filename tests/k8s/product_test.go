package k8s

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestTheProductAcceptsTheSettings starts Django with the environment of each kind of role, in production mode, where unsafe or
// malformed settings are refused.
func TestTheProductAcceptsTheSettings(t *testing.T) {
	folder := t.TempDir()
	certificates, _ := filepath.Glob(filepath.Join(venv(), "lib/python3*/site-packages/certifi/cacert.pem"))
	if len(certificates) == 0 {
		t.Fatalf("there is no environment with certifi in %s: make test-k8s installs it", venv())
	}
	ca, err := os.ReadFile(certificates[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, overlay := range []overlay{allRoles, setupForAll} {
		built := build(t, overlay)
		for _, each := range built.pods() {
			if strings.Contains("web auth-results chat scim search migrate set-up-kafka", each.role) {
				t.Run(each.role, func(t *testing.T) { loads(t, built, &each.spec.Containers[0], folder) })
			}
		}
	}
}

func loads(t *testing.T, built *installation, container *corev1.Container, folder string) {
	t.Parallel()
	command := exec.Command(filepath.Join(venv(), "bin/python"), "-c", "import django; django.setup()")
	command.Dir = root
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "DJANGO_SETTINGS_MODULE=signup_sync.settings", "DATA_DIR=" + folder,
		// The overlay's settings name the servers of the component scim.
		"SCIM_SERVERS=people=https://people.example.org/scim/v2"}
	for name, value := range expanded(built, container) {
		command.Env = append(command.Env, name+"="+strings.ReplaceAll(value, "/etc/signup-sync", folder))
	}
	if output, err := command.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(output)), "\n")
		t.Errorf("%v: %s", err, lines[len(lines)-1])
	}
}

// venv is the folder of the product's Python environment.
func venv() string {
	if folder := os.Getenv("VENV"); folder != "" {
		return folder
	}
	folder, err := filepath.Abs(filepath.Join(root, ".venv"))
	if err != nil {
		panic(err)
	}
	return folder
}

// expanded replaces references as Kubernetes does. Secrets get values that suit them.
func expanded(built *installation, container *corev1.Container) map[string]string {
	values := built.environment(container)
	secrets := map[string]string{
		"SECRET_KEY":       "q8Zr-3TkXw1nBv6Yc0LmHs9Pd4Gf7Ja2Re5Uo_ItQxNzWyKbVh",
		"EMAIL_URL":        "smtp+tls://signup:secret@mail.example.org:587",
		"PYTHON_CPU_COUNT": "2",
		"SCIM_TOKENS":      "",

		"SECRET_KEY_FALLBACKS": "",
	}
	for name := range values {
		if strings.HasSuffix(name, "_PASSWORD") {
			secrets[name] = "0123456789abcdef"
		}
	}
	for name, value := range secrets {
		if _, isThere := values[name]; isThere {
			values[name] = value
		}
	}
	for name, value := range values {
		values[name] = reference.ReplaceAllStringFunc(value, func(found string) string {
			return values[found[2:len(found)-1]]
		})
	}
	return values
}
