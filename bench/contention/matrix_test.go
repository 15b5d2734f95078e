package main

import (
	"encoding/xml"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight/bench/rivals"
)

// planted is a report with one rival of each sort.
func planted() *report {
	c := &config{goroutines: []int{1}, duplicates: []float64{0.9}, procs: []int{1}, contractKeys: 2000}
	rep := newReport(c)
	add := func(name string, keeps bool, contract *rivals.Contract) {
		rep.Rivals = append(rep.Rivals, &rivalReport{Name: name, Keeps: keeps, Contract: contract})
	}
	add("idemflight", true, &rivals.Contract{WorkGoesOn: true, LeaderLeaves: true, Others: rivals.OthersValue})
	add("singleflight", false, &rivals.Contract{Twice: 340, Others: rivals.OthersError})
	add("otter", true, &rivals.Contract{Others: rivals.OthersAgain})
	add("ttlcache", true, &rivals.Contract{Twice: 4, WorkGoesOn: true, Others: rivals.OthersStuck})
	add("sturdyc", true, nil)
	return rep
}

func TestVerdicts(t *testing.T) {
	require.Equal(t, []verdict{
		{name: "idemflight", ours: true, seen: true, count: "0", work: answer{"goes on", true}, others: answer{"the value", true}},
		{name: "singleflight", seen: true, twice: 340, count: "340 *", work: answer{"cancelled", false}, others: answer{"its error", false}},
		{name: "otter", seen: true, count: "0", work: answer{"runs again", false}, others: answer{"a second run", false}},
		{name: "ttlcache", seen: true, twice: 4, count: "4", work: answer{"goes on", true}, others: answer{"nothing", false}},
		{name: "sturdyc"},
	}, planted().verdicts())
}

// texts returns what is written in an SVG, line by line from the top and each from the left.
func texts(t *testing.T, svg string) (lines [][]string) {
	t.Helper()
	last := ""
	for decoder := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := decoder.Token()
		if err == io.EOF {
			return lines
		}
		require.NoError(t, err)
		start, isStart := token.(xml.StartElement)
		if !isStart || start.Name.Local != "text" {
			continue
		}
		var text string
		require.NoError(t, decoder.DecodeElement(&text, &start))
		y := attribute(start, "y")
		if y != last {
			lines, last = append(lines, nil), y
		}
		lines[len(lines)-1] = append(lines[len(lines)-1], text)
	}
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func TestContractChartHasARowPerRival(t *testing.T) {
	for _, theme := range themes {
		svg, err := planted().contractChart().render(theme)
		require.NoError(t, err)
		require.Equal(t, [][]string{
			{"What becomes of duplicates"},
			{"ran twice,", "if the leader is cancelled,"},
			{"of 2000", "its work", "others get"},
			{"idemflight", "0", "goes on", "the value"},
			{"singleflight", "340 *", "cancelled", "its error"},
			{"otter", "0", "runs again", "a second run"},
			{"ttlcache", "4", "goes on", "nothing"},
			{"sturdyc", none, none, none},
			{"* keeps nothing: a late duplicate runs again"},
		}, texts(t, svg))
	}
}

func TestTextIsLargeEnoughForAPhone(t *testing.T) {
	for _, c := range planted().charts() {
		svg, err := c.render(themes[0])
		require.NoError(t, err)
		for _, part := range strings.Split(svg, "font-size:")[1:] {
			size, _, _ := strings.Cut(part, "px")
			points, err := strconv.ParseFloat(size, 64)
			require.NoError(t, err)
			require.GreaterOrEqual(t, points*358/float64(chartWidth), 11.0, c.name)
		}
	}
}
