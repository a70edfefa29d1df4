package quorum

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mochi/coordinator/wal"
)

// Standings of a member, as its file says.
const (
	blank     = "blank"     // its folder is empty, and it is not known yet why
	returning = "returning" // its folder was emptied: it follows, but has no vote
	voting    = "voting"
)

// membershipFile says who this member is.
const membershipFile = "member"

// membership is what a member knows of itself and its group.
//
// A member that lost its files must not go on as if nothing had happened: it may have
// voted for a leader, and acknowledged commits, that it knows nothing of any more; with
// its vote, a member without those commits could become the leader. So a folder has an
// identity, a nonce that is made when it is empty, and its vote depends on it:
//
//   - A group is founded by the first of its members, by name, when it has seen all
//     others with empty folders. It writes down all their nonces. A member whose nonce is
//     among them was there when the group began: it has forgotten nothing.
//   - A member whose nonce is not among them has lost its folder. It asks all others
//     for the highest term that they know, and takes part from that term on without a
//     vote: whatever it did before was in that term or an earlier one, since the leader
//     or candidate it did it for is among those asked. A majority must remember.
//   - It follows the leader, which then puts its nonce into the log. When that entry
//     reaches it, it holds all that was committed before, so it votes again.
//
// Sources: Ongaro 2014, "Consensus" (4.2, 11); Liskov and Cowling 2012, "Viewstamped
// replication revisited" (4.3, recovery); Alagappan et al. 2018, "Protocol-aware
// recovery".
type membership struct {
	Job      string            `json:"job"`
	Name     string            `json:"name"`
	Nonce    string            `json:"nonce"`
	Standing string            `json:"standing"`
	Group    string            `json:"group,omitempty"`
	Founders map[string]string `json:"founders,omitempty"` // nonces by name
}

// openMembership reads a member's file, or makes that of an empty folder.
func openMembership(files wal.Files, job, name string) (m membership, err error) {
	b, err := readFile(files, membershipFile)
	if err != nil {
		return m, err
	}
	if b != nil {
		if err := unseal(b, &m); err != nil {
			return m, &DamagedError{What: fmt.Errorf("the file %s: %w", membershipFile, err)}
		}
		if m.Job != job || m.Name != name {
			return m, fmt.Errorf("the folder is that of coordinator %q of job %q, not of %q of %q: use another folder, or its names", m.Name, m.Job, name, job)
		}
		return m, nil
	}
	names, err := files.List()
	if err != nil {
		return m, err
	}
	if i := slices.IndexFunc(names, func(n string) bool { return n == votesFile }); i >= 0 {
		return m, &DamagedError{What: fmt.Errorf("the file %s is missing", membershipFile)}
	}
	m = membership{Job: job, Name: name, Nonce: rand.Text(), Standing: blank}
	return m, m.save(files)
}

func (m membership) save(files wal.Files) error {
	b, err := seal(m)
	if err == nil {
		err = wal.Replace(files, membershipFile, b)
	}
	if err != nil {
		return fmt.Errorf("write the file %s: %w", membershipFile, err)
	}
	return nil
}

// decide says what becomes of a member with an empty folder, given the answers of the
// others, by name. changed is false while it must wait; why says what for. term is the
// one it takes part from.
func (m membership) decide(names []string, heard map[string]answer) (next membership, term uint64, changed bool, why string) {
	next = m
	var silent, empty []string
	remember := 0
	for _, name := range names {
		a, ok := heard[name]
		switch {
		case name == m.Name:
		case !ok:
			silent = append(silent, name)
		case a.Standing == blank:
			empty = append(empty, name)
		case a.Founders[m.Name] == m.Nonce:
			next.Standing, next.Group, next.Founders = voting, a.Group, maps.Clone(a.Founders)
			return next, 1, true, "the group began with this member"
		default:
			if next.Group != "" && next.Group != a.Group {
				return m, 0, false, fmt.Sprintf("the others are of different groups (%s is of %s): empty the folders of all that are not of the right one", name, a.Group)
			}
			next.Group, next.Founders = a.Group, maps.Clone(a.Founders)
			term = max(term, a.Term)
			remember++
		}
	}
	switch {
	case len(silent) > 0 && remember > 0:
		return m, 0, false, "its folder was emptied: until all others have been heard once it may not follow; waiting for " + strings.Join(silent, ", ")
	case len(silent) > 0:
		return m, 0, false, "a new group begins when all of its coordinators have been started; waiting for " + strings.Join(silent, ", ")
	case remember == 0 && m.Name != slices.Min(names):
		return m, 0, false, "waiting for " + slices.Min(names) + " to begin the group"
	case remember == 0:
		next.Founders = map[string]string{m.Name: m.Nonce}
		for _, name := range empty {
			next.Founders[name] = heard[name].Nonce
		}
		next.Standing, next.Group = voting, groupOf(next.Founders)
		return next, 1, true, "all coordinators are new: the group begins"
	case remember <= len(names)/2:
		return m, 0, false, fmt.Sprintf("the folders of %s are empty too: only %d of %d coordinators remember the job, and what they hold may not be all. To go on, empty the folders of all: a new group begins, and takes what the replicas hold", strings.Join(empty, ", "), remember, len(names))
	}
	next.Standing = returning
	return next, term, true, "its folder was emptied: it follows, and votes again when it has what the others have"
}

// groupOf is the identity of a group.
func groupOf(founders map[string]string) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(founders)) {
		fmt.Fprintf(h, "%q %q\n", name, founders[name])
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}
