package idemprom_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

func document(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("../docs/" + name)
	require.NoError(t, err)
	return string(b)
}

// samples are the names under which a family is asked for in PromQL.
func samples(f *dto.MetricFamily) []string {
	if f.GetType() == dto.MetricType_HISTOGRAM {
		return []string{f.GetName() + "_bucket", f.GetName() + "_sum", f.GetName() + "_count"}
	}
	return []string{f.GetName()}
}

var (
	selectors = regexp.MustCompile(`idemflight_\w+(\{[^}]*\})?`)
	matchers  = regexp.MustCompile(`(\w+)(=~|!=|=)"([^"]*)"`)
)

// requireScraped fails if expr asks for a metric, a label or a value of a label that no scrape has.
func requireScraped(t testing.TB, expr string, fs families) {
	t.Helper()
	metrics := map[string][]*dto.Metric{}
	for _, f := range fs {
		for _, name := range samples(f) {
			metrics[name] = f.GetMetric()
		}
	}
	asked := selectors.FindAllString(expr, -1)
	require.NotEmpty(t, asked, "%q asks for nothing", expr)
	for _, selector := range asked {
		name, labels, _ := strings.Cut(selector, "{")
		require.Contains(t, metrics, name, "in %q", expr)
		values := map[string]bool{}
		for _, m := range metrics[name] {
			for _, l := range m.GetLabel() {
				values[l.GetName()+"="+l.GetValue()] = true
				values[l.GetName()] = true
			}
		}
		for _, m := range matchers.FindAllStringSubmatch(labels, -1) {
			if m[1] == "cache" {
				continue
			}
			for value := range strings.SplitSeq(m[3], "|") {
				require.Contains(t, values, m[1]+"="+value, "of %s in %q", name, expr)
			}
		}
		for _, by := range regexp.MustCompile(`(?:by|without) \(([^)]*)\)`).FindAllStringSubmatch(expr, -1) {
			for label := range strings.SplitSeq(by[1], ", ") {
				require.True(t, label == "le" || values[label] || label == "state", "%s, in %q, is no label of %s", label, expr, name)
			}
		}
	}
}

// TestAlerts_AskForWhatIsScraped, and each has a summary and a section in docs/operations.md.
func TestAlerts_AskForWhatIsScraped(t *testing.T) {
	fs := scrape(t, used(t), text)
	sections := document(t, "operations.md")
	alerts := strings.Split(document(t, "alerts.yml"), "- alert: ")[1:]
	require.Len(t, alerts, 5)
	for _, alert := range alerts {
		name, rest, _ := strings.Cut(alert, "\n")
		require.NotContains(t, rest, "severity: unknown")
		expr := regexp.MustCompile(`(?m)^ +expr: (.*)$`).FindStringSubmatch(rest)
		require.NotNil(t, expr, "%s has an expr in one line", name)
		requireScraped(t, expr[1], fs)
		require.Regexp(t, `(?m)^ +summary: '.+'$`, rest, name)
		require.Contains(t, rest, "runbook: docs/operations.md#"+strings.ToLower(name)+"\n", name)
		require.Contains(t, sections, "\n### "+name+"\n", "docs/operations.md has a section for the alert")
	}
}

// TestDashboard_AsksForWhatIsScraped: and shows every metric that there is.
func TestDashboard_AsksForWhatIsScraped(t *testing.T) {
	fs := scrape(t, used(t), text)
	var dashboard struct {
		Panels []struct {
			ID                       int
			Type, Title, Description string
			GridPos                  struct{ X, Y, W, H int }
			Targets                  []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(document(t, "dashboard.json")), &dashboard))
	require.Len(t, dashboard.Templating.List, 2)
	ids, cells, shown := map[int]bool{}, map[string]string{}, ""
	for _, p := range dashboard.Panels {
		require.False(t, ids[p.ID], "the number of %q is used twice", p.Title)
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := fmt.Sprint(p.GridPos.X+x, " ", p.GridPos.Y+y)
				require.Empty(t, cells[cell], "%q lies upon it", p.Title)
				cells[cell] = p.Title
			}
		}
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		if p.Type == "row" {
			continue
		}
		require.NotEmpty(t, p.Description, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			requireScraped(t, target.Expr, fs)
			require.Equal(t, len(selectors.FindAllString(target.Expr, -1)), strings.Count(target.Expr, `cache=~"$cache"`), "%q is of the chosen caches", p.Title)
			shown += target.Expr
		}
	}
	for name := range fs {
		require.Contains(t, shown, name, "a panel that shows it")
	}
}

// TestAlerts_PromtoolAgrees: the rules are rules, and come when they should.
func TestAlerts_PromtoolAgrees(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("IDEMFLIGHT_SERVERS") == "required" {
			t.Fatalf("IDEMFLIGHT_SERVERS=required, and there is no promtool: %v", err)
		}
		t.Skipf("skipped: no promtool: %v", err)
	}
	for _, args := range [][]string{{"check", "rules", "../docs/alerts.yml"}, {"test", "rules", "testdata/alerts_test.yml"}} {
		out, err := exec.Command(promtool, args...).CombinedOutput()
		require.NoError(t, err, "promtool %s: %s", strings.Join(args, " "), out)
	}
}

// TestDocs_NameEveryMetric: the package documentation has all names, and all values of their labels.
func TestDocs_NameEveryMetric(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	for name, values := range contract {
		require.Contains(t, string(doc), "//\t"+name)
		for _, value := range values {
			require.Contains(t, string(doc), value, name)
		}
	}
}
