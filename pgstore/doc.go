// Package pgstore keeps the keys of idemflight in PostgreSQL.
package pgstore
