// Command docs writes docs/promises.md from the tests, and checks what the other pages name.
//
//	go run ./internal/docs           write the page
//	go run ./internal/docs -check    exit with 1 if it is not up to date, or a page names what does not exist
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

//go:generate go run . -root ../..

const promisesPage = "docs/promises.md"

func main() {
	root := flag.String("root", ".", "the repository")
	check := flag.Bool("check", false, "write nothing, and say what is wrong")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	repository := os.DirFS(root)
	promises, err := collect(repository)
	if err != nil {
		return err
	}
	page := render(promises)
	if !check {
		return os.WriteFile(filepath.Join(root, promisesPage), page, 0o644)
	}
	written, err := fs.ReadFile(repository, promisesPage)
	if err != nil {
		return err
	}
	if !bytes.Equal(written, page) {
		return fmt.Errorf("%s is not up to date: go run ./internal/docs", promisesPage)
	}
	if err := checkErrors(repository); err != nil {
		return err
	}
	return checkLinks(repository)
}
