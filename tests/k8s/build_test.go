// Package k8s tests the manifests of deploy/k8s: it builds them as `kubectl kustomize` does, decodes them into the types of
// the Kubernetes API, where an unknown field is an error, and applies the rules in this package.
package k8s

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const root = "../.."

// An installation is the result of one build.
type installation struct {
	namespaces      []*corev1.Namespace
	serviceAccounts []*corev1.ServiceAccount
	configMaps      []*corev1.ConfigMap
	secrets         []*corev1.Secret
	services        []*corev1.Service
	deployments     []*appsv1.Deployment
	jobs            []*batchv1.Job
	budgets         []*policyv1.PodDisruptionBudget
	scalers         []*autoscalingv2.HorizontalPodAutoscaler
	policies        []*networkingv1.NetworkPolicy
	routes          []*gatewayv1.HTTPRoute
}

// An overlay is a folder of deploy/k8s that an operator applies, with components that may be added to it, separated by spaces.
type overlay struct{ folder, components string }

func (o overlay) String() string { return strings.TrimSpace(o.folder + " " + o.components) }

var (
	roles           = overlay{"overlays/production", ""}
	setup           = overlay{"overlays/production/setup", ""}
	rolesWithSCIM   = overlay{"overlays/production", "components/scim"}
	setupWithSCIM   = overlay{"overlays/production/setup", "components/scim-setup"}
	rolesWithSearch = overlay{"overlays/production", "overlays/production/search"}
	setupWithSearch = overlay{"overlays/production/setup", "components/search-setup"}
	allRoles        = overlay{"overlays/production", "components/scim overlays/production/search"}
	setupForAll     = overlay{"overlays/production/setup", "components/scim-setup components/search-setup"}
	overlays        = []overlay{roles, setup, rolesWithSCIM, setupWithSCIM, rolesWithSearch, setupWithSearch, allRoles, setupForAll}
)

type manifest struct {
	id, kind string
	text     []byte
}

var manifests = map[overlay][]manifest{}

// build decodes an overlay's manifests, which it makes once. Every caller gets objects that it may change.
func build(t *testing.T, of overlay) *installation {
	t.Helper()
	if manifests[of] == nil {
		manifests[of] = kustomize(t, of)
	}
	result := &installation{}
	for _, each := range manifests[of] {
		if err := result.add(each.kind, each.text); err != nil {
			t.Errorf("%s: %s: %v", of, each.id, err)
		}
	}
	return result
}

func kustomize(t *testing.T, of overlay) (found []manifest) {
	t.Helper()
	folder := filepath.Join(root, "deploy/k8s", of.folder)
	if of.components != "" {
		folder = withComponents(t, of)
	}
	options := krusty.MakeDefaultOptions()
	options.LoadRestrictions = types.LoadRestrictionsNone
	built, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		t.Fatalf("%s can't be built: %v", of, err)
	}
	for _, each := range built.Resources() {
		text, err := each.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, manifest{each.CurId().String(), each.GetKind(), text})
	}
	return found
}

// withComponents writes a copy of the overlay's kustomization with components before its own, and returns the folder.
func withComponents(t *testing.T, of overlay) string {
	t.Helper()
	var file types.Kustomization
	if err := yaml.Unmarshal([]byte(read("deploy/k8s/"+of.folder+"/kustomization.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for _, list := range [][]string{file.Resources, file.Components} {
		for n := range list {
			list[n] = filepath.Join(of.folder, list[n])
		}
	}
	file.Components = append(strings.Fields(of.components), file.Components...)
	for _, list := range [][]string{file.Resources, file.Components} {
		for n := range list {
			target, err := filepath.Abs(filepath.Join(root, "deploy/k8s", list[n]))
			if err != nil {
				t.Fatal(err)
			}
			if list[n], err = filepath.Rel(folder, target); err != nil {
				t.Fatal(err)
			}
		}
	}
	text, err := yaml.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

// add decodes one manifest strictly: unknown fields, wrong types and wrong upper or lower case are errors.
func (i *installation) add(kind string, text []byte) error {
	switch kind {
	case "Namespace":
		return decode(text, "v1", &i.namespaces)
	case "ServiceAccount":
		return decode(text, "v1", &i.serviceAccounts)
	case "ConfigMap":
		return decode(text, "v1", &i.configMaps)
	case "Secret":
		return decode(text, "v1", &i.secrets)
	case "Service":
		return decode(text, "v1", &i.services)
	case "Deployment":
		return decode(text, "apps/v1", &i.deployments)
	case "Job":
		return decode(text, "batch/v1", &i.jobs)
	case "PodDisruptionBudget":
		return decode(text, "policy/v1", &i.budgets)
	case "HorizontalPodAutoscaler":
		return decode(text, "autoscaling/v2", &i.scalers)
	case "NetworkPolicy":
		return decode(text, "networking.k8s.io/v1", &i.policies)
	case "HTTPRoute":
		return decode(text, "gateway.networking.k8s.io/v1", &i.routes)
	}
	return fmt.Errorf("no type is known for the kind %s", kind)
}

func decode[T any](text []byte, version string, list *[]*T) error {
	var head struct {
		APIVersion string `json:"apiVersion"`
	}
	if err := yaml.Unmarshal(text, &head); err != nil {
		return err
	}
	if head.APIVersion != version {
		return fmt.Errorf("its apiVersion is %s, not %s", head.APIVersion, version)
	}
	document, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	object := new(T)
	unknown, err := json.UnmarshalStrict(document, object)
	if err != nil {
		return err
	}
	if len(unknown) > 0 {
		return fmt.Errorf("%v", unknown)
	}
	*list = append(*list, object)
	return nil
}

func TestAMisspeltFieldIsRefused(t *testing.T) {
	for wrong, right := range map[string]string{"replica": "replicas", "Replicas": "replicas"} {
		text := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: chat}\nspec: {" + wrong + ": 2}\n"
		if err := new(installation).add("Deployment", []byte(text)); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s instead of %s was accepted: %v", wrong, right, err)
		}
	}
	text := "apiVersion: apps/v1beta1\nkind: Deployment\n"
	if err := new(installation).add("Deployment", []byte(text)); err == nil {
		t.Error("a version of the API that no longer exists was accepted")
	}
}

// read returns a file of the repository.
func read(path string) string {
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		panic(err)
	}
	return string(text)
}
