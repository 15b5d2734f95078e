package main

// equivalent lists mutants that no test can kill, by their names, with the reason why.
var equivalent = []explained{}

// explained are mutants of one package that survive, or make the suite hang, for one reason.
type explained struct {
	pkg    string
	reason string
	names  []string // as the report has them: declaration, kind and text, but no line
}

// reasonFor returns why a mutant survives, "" if that is not known.
func reasonFor(list []explained, m *mutant) string {
	for _, e := range list {
		for _, name := range e.names {
			if e.pkg == m.Pkg && name == m.name() {
				return e.reason
			}
		}
	}
	return ""
}
