package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"golang.org/x/sync/errgroup"

	"mochi/replica/data/naming"
	"mochi/replica/data/shards"
)

// object makes a shard of the store.
func (s *Store) object(l location) *Object { return &Object{store: s, at: l} }

// Find is the shards that a pattern names, in the order of their names, and those of a
// test split beside them: as in a folder, the word train of their names replaced by one
// for a test split. A server cannot be asked what there is, so these are tried, counting
// up; their numbers must have as many digits as those of the training split.
func (s *Store) Find(ctx context.Context, pattern string) (train, test []*Object, err error) {
	l, err := parse(pattern)
	if err != nil {
		return nil, nil, err
	}
	paths, err := shards.Braces(l.path)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", Shown(pattern), err)
	}
	seen := make(map[string]bool)
	for _, p := range paths {
		if seen[p] {
			return nil, nil, fmt.Errorf("%s: names %s twice", Shown(pattern), path.Base(p))
		}
		seen[p] = true
		at := l
		at.path = p
		train = append(train, s.object(at))
	}
	if err := train[0].stat(ctx); err != nil { // says first what is wrong with all
		return nil, nil, err
	}
	for _, word := range naming.TestWords {
		if test, err = s.beside(ctx, train[0].at, word); err != nil || len(test) > 0 {
			return train, test, err
		}
	}
	return train, nil, nil
}

var lastNumber = regexp.MustCompile(`[0-9]+`)

// beside is the shards of a test split beside one of the training split.
func (s *Store) beside(ctx context.Context, of location, word string) ([]*Object, error) {
	base := of.base()
	at := strings.LastIndex(base, "train")
	if at < 0 {
		return nil, nil
	}
	name := base[:at] + word + base[at+len("train"):]
	if seen := base[:at]; lastNumber.MatchString(name[len(seen)+len(word):]) {
		return s.numbered(ctx, of, name, len(seen)+len(word))
	}
	o := s.object(of.sibling(name))
	there, err := o.there(ctx)
	if !there {
		return nil, err
	}
	return []*Object{o}, nil
}

// numbered counts the last number of a name behind byte from up from zero, or from one,
// for as long as there are shards.
func (s *Store) numbered(ctx context.Context, of location, name string, from int) (found []*Object, err error) {
	spans := lastNumber.FindAllStringIndex(name[from:], -1)
	span := spans[len(spans)-1]
	before, after, digits := name[:from+span[0]], name[from+span[1]:], span[1]-span[0]
	probe := func(n, many int) (objects []*Object, there []bool, err error) {
		there = make([]bool, many)
		group, ctx := errgroup.WithContext(ctx)
		for i := range many {
			o := s.object(of.sibling(fmt.Sprintf("%s%0*d%s", before, digits, n+i, after)))
			objects = append(objects, o)
			group.Go(func() (err error) {
				there[i], err = o.there(ctx)
				return err
			})
		}
		return objects, there, group.Wait()
	}
	_, first, err := probe(0, 2)
	if err != nil || !first[0] && !first[1] {
		return nil, err
	}
	n := 0
	if !first[0] {
		n = 1
	}
	for ; ; n += together {
		objects, there, err := probe(n, together)
		if err != nil {
			return nil, err
		}
		for i, o := range objects {
			if !there[i] {
				return found, nil
			}
			found = append(found, o)
		}
	}
}

// together is how many shards are looked for at a time.
const together = 8

// there says whether a server has a tar file there: some answer with a page where there
// is nothing.
func (o *Object) there(ctx context.Context) (bool, error) {
	s := o.stream(0, 512)
	defer s.close()
	head := make([]byte, 512)
	for {
		err := s.open(ctx)
		if err == nil {
			break
		}
		var f *failure
		if errors.As(err, &f) && (f.missing || f.final) {
			return false, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		s.close()
		if err := s.again(ctx, err); err != nil {
			return false, err
		}
	}
	m := s.head
	if m.size < int64(len(head)) {
		return false, nil
	}
	if err := s.fill(ctx, head); err != nil {
		return false, err
	}
	if string(head[257:262]) != "ustar" {
		return false, nil
	}
	if s.left == 0 {
		_, _ = io.Copy(io.Discard, s.body)
	}
	o.known(m)
	return true, nil
}
