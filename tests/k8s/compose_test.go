package k8s

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

type composeService struct {
	Image       string            `json:"image"`
	Command     any               `json:"command"`
	Environment map[string]string `json:"environment"`
}

// composeRoles returns the services of compose.yaml that run a command of the product.
func composeRoles(t *testing.T) map[string]composeService {
	t.Helper()
	var file struct {
		Services map[string]composeService `json:"services"`
	}
	if err := yaml.Unmarshal([]byte(read("compose.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(file.Services, func(_ string, each composeService) bool {
		return !strings.Contains(each.Image, "signup-sync") || !slices.Contains(words(each.Command), "manage.py")
	})
	return file.Services
}

func TestEveryRoleHasTheCommandAndTheRightsThatItHasInCompose(t *testing.T) {
	pods := map[string]pod{}
	environments := map[string]map[string]string{}
	for _, overlay := range []overlay{allRoles, setupForAll} {
		built := build(t, overlay)
		for _, each := range built.pods() {
			pods[each.role] = each
			environments[each.role] = built.environment(&each.spec.Containers[0])
		}
	}
	inCompose := composeRoles(t)
	if len(inCompose) < 12 {
		t.Fatalf("compose.yaml has only %d roles", len(inCompose))
	}
	for name, service := range inCompose {
		if _, isThere := pods[name]; !isThere {
			t.Errorf("there is no role %s", name)
			continue
		}
		if command, ofCompose := pods[name].spec.Containers[0].Command, words(service.Command); !slices.Equal(command, ofCompose) {
			// A file may be mounted elsewhere.
			if len(command) != len(ofCompose) || name != "set-up-kafka" {
				t.Errorf("%s runs %v, and %v in compose", name, command, ofCompose)
			}
		}
		// A database that a role may not use is not named, or leads nowhere.
		isNone := func(_, user string) bool { return user == "none" }
		here, there := rights(environments[name]), rights(service.Environment)
		maps.DeleteFunc(here, isNone)
		maps.DeleteFunc(there, isNone)
		if !maps.Equal(here, there) {
			t.Errorf("%s has the rights %v, and %v in compose", name, here, there)
		}
		if here, there := environments[name]["WEB_ROLE"], service.Environment["WEB_ROLE"]; here != there {
			t.Errorf("%s has the role %q, and %q in compose", name, here, there)
		}
		if here, there := environments[name]["OPENSEARCH_URL"] != "", service.Environment["OPENSEARCH_URL"] != ""; here != there {
			t.Errorf("%s gets an OpenSearch: %v, and in compose: %v", name, here, there)
		}
	}
	delete(pods, "gateway")
	for name := range pods {
		if _, isThere := inCompose[name]; !isThere {
			t.Errorf("compose.yaml has no role %s", name)
		}
	}
}

func words(command any) []string {
	if command == nil {
		return nil
	}
	if text, isText := command.(string); isText {
		return strings.Fields(text)
	}
	var list []string
	for _, each := range command.([]any) {
		list = append(list, each.(string))
	}
	return list
}
