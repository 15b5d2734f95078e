// Package clients has no code but tests: they make well-known clients fail, against real servers or
// ones that fail on purpose, and check what idemflight.ClassifyLenient makes of the errors that the
// clients really return. docs/classify.md shows the same rows as a table.
//
//	go test .                                # compares the table of the document with the rows
//	go test . -run TestTable -args -write    # writes it anew
//
// Rows of PostgreSQL and NATS need a server at 127.0.0.1, at the usual port, and are skipped where
// there is none. With IDEMFLIGHT_SERVERS=required they fail instead.
package clients
