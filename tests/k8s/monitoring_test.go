package k8s

import (
	"strings"
	"testing"

	"gopkg.in/yaml.v2"
	"sigs.k8s.io/prometheus-adapter/pkg/config"
)

func TestTheAdapterServesTheMetricThatTheConsumersAreScaledBy(t *testing.T) {
	var values struct {
		Rules struct {
			Default  bool                   `yaml:"default"`
			External []config.DiscoveryRule `yaml:"external"`
		} `yaml:"rules"`
	}
	if err := yaml.UnmarshalStrict([]byte(read("deploy/k8s/monitoring/prometheus-adapter.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	if len(values.Rules.External) != 1 {
		t.Fatalf("it has %d rules", len(values.Rules.External))
	}
	rule := values.Rules.External[0]
	for _, each := range build(t, roles).scalers {
		if of := each.Spec.Metrics[0].External; of != nil && (of.Metric.Name != rule.Name.Matches || of.Metric.Name != rule.SeriesQuery) {
			t.Errorf("%s is scaled by %s, and the rule is about %s", each.Name, of.Metric.Name, rule.SeriesQuery)
		}
	}
	for _, part := range []string{"<<.Series>>", "<<.LabelMatchers>>", "by (group)", ">= 0"} {
		if !strings.Contains(rule.MetricsQuery, part) {
			t.Errorf("the query lacks %s", part)
		}
	}
}
