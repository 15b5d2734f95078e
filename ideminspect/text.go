package ideminspect

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxKey   = 200  // characters of a key that are shown
	maxText  = 4000 // of an error or a value
	maxShort = 300  // of an error in the list
)

// clean returns s as it can be shown anywhere: what is not printable (controls, marks that turn the
// direction of writing, bytes that are not UTF-8) is escaped as in Go, except line ends; and the
// rest is cut off after so many characters.
func clean(s string, most int) string {
	var b strings.Builder
	for n := 0; s != ""; n++ {
		if n == most {
			return b.String() + "…"
		}
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\n' || unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
		s = s[size:]
	}
	return b.String()
}

// short returns what of an error is in the list.
func short(s string) string { return clean(s, maxShort) }

// mask returns a bit of s, to recognize it by: at most four characters, and at most a third of it.
func mask(s string) string {
	r := []rune(s)
	return string(r[:min(4, len(r)/3)]) + "…"
}

// space does not let a line break between a number and its unit.
const space = "\u00a0"

// age returns d in its two largest units.
func age(d time.Duration) string {
	two := func(whole time.Duration, unit, format string, part time.Duration, partUnit string) string {
		return fmt.Sprintf("%d%s%s%s"+format+"%s%s", d/whole, space, unit, space, d%whole/part, space, partUnit)
	}
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d < time.Second:
		return fmt.Sprintf("%d%sms", d.Milliseconds(), space)
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f%ss", d.Truncate(100*time.Millisecond).Seconds(), space)
	case d < time.Minute:
		return fmt.Sprintf("%d%ss", d/time.Second, space)
	case d < time.Hour:
		return two(time.Minute, "min", "%02d", time.Second, "s")
	case d < day:
		return two(time.Hour, "h", "%02d", time.Minute, "min")
	}
	return two(day, "d", "%d", time.Hour, "h")
}

// instant returns t for machines and for people who may be anywhere.
func instant(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// number returns a whole number, of whatever type, with its thousands apart.
func number(n any) string {
	if p, ok := n.(*int); ok {
		n = *p
	}
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// rate returns a frequency.
func rate(perSecond float64) string {
	switch {
	case perSecond == 0:
		return "0"
	case perSecond < 0.01:
		return "<" + space + "0.01"
	case perSecond < 10:
		return strconv.FormatFloat(perSecond, 'f', 2, 64)
	}
	return number(int64(perSecond + 0.5))
}
