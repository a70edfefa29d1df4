package main

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

var (
	mdLink    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	mdCode    = regexp.MustCompile("`[^`]*`")
	mdHeading = regexp.MustCompile(`^#+ +(.*?) *$`)
)

// brokenLinks checks the links of all Markdown files that point into the
// repository: the file is there, and so is the heading.
func brokenLinks() ([]string, error) {
	names, err := tracked("*.md")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for i, line := range prose(string(text)) {
			for _, m := range mdLink.FindAllStringSubmatch(mdCode.ReplaceAllString(line, ""), -1) {
				if why := broken(name, m[1]); why != "" {
					found = append(found, fmt.Sprintf("%s:%d: link %s: %s", name, i+1, m[1], why))
				}
			}
		}
	}
	return found, nil
}

// broken says what is wrong with a link of a file, "" when nothing is.
func broken(name, link string) string {
	u, err := url.Parse(link)
	if err != nil {
		return err.Error()
	}
	if u.Scheme != "" || u.Host != "" {
		return "" // elsewhere
	}
	target := name
	if u.Path != "" {
		target = path.Join(path.Dir(name), u.Path)
	}
	text, err := os.ReadFile(target)
	if err != nil {
		if info, statErr := os.Stat(target); statErr == nil && info.IsDir() {
			return ""
		}
		return "no such file"
	}
	if u.Fragment == "" || !strings.HasSuffix(target, ".md") {
		return ""
	}
	for _, line := range prose(string(text)) {
		if m := mdHeading.FindStringSubmatch(line); m != nil && anchor(m[1]) == u.Fragment {
			return ""
		}
	}
	return "no such heading"
}

// prose is the lines of a Markdown text, with those of code blocks empty.
func prose(text string) []string {
	lines := strings.Split(text, "\n")
	code := false
	for i, line := range lines {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if fence || code {
			lines[i] = ""
		}
		code = code != fence
	}
	return lines
}

// anchor is a heading as a link names it: small letters, hyphens for spaces,
// without punctuation.
func anchor(heading string) string {
	kept := slices.DeleteFunc([]rune(strings.ToLower(heading)), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != ' ' && r != '-' && r != '_'
	})
	return strings.ReplaceAll(string(kept), " ", "-")
}
