package idemhttp_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/idemhttp"
)

// The type of each problem is an address, and there is a section about it there. The kinds are those that
// Stats counts, named as Go names them.
func TestProblemTypes_LeadToTheirSectionsOfTheDocs(t *testing.T) {
	page, err := os.ReadFile("../docs/http.md")
	require.NoError(t, err)
	m := newMiddleware(t, idemhttp.Options{Require: true})
	require.Equal(t, "https://github.com/idemflight/idemflight/blob/main/docs/http.md#problem-missing-key",
		call(m.Handler(status(200)), post("", "")).problem(t).Type)

	inner := regexp.MustCompile(`\B[A-Z]`)
	for _, field := range reflect.VisibleFields(reflect.TypeFor[idemhttp.Stats]()) {
		kind := strings.ToLower(inner.ReplaceAllString(field.Name, "-$0"))
		require.Equal(t, 1, strings.Count(string(page), "\n### <a id=\"problem-"+kind+"\"></a>"+kind+"\n"),
			"sections about %s", kind)
	}
}
