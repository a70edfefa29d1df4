package main

// mutation is a fault with a name.
type mutation struct {
	name  string
	edits []edit
}

// mutations are faults that a protocol such as this one could have.
var mutations = []mutation{
	{"a commit is published before it is appended", []edit{{
		"coordinator/step.go",
		"		r.Append(commit)\n",
		"		r.Append(commit)\n		for _, m := range r.Members() {\n			c.send(m.ID(), protocol.Message{Commit: commit})\n		}\n",
	}}},
	{"votes are taken without a look at the round", []edit{{
		"coordinator/round/step.go",
		"!r.Has(m) || v.Round != r.plan.Number || v.Step != r.step",
		"!r.Has(m) || v.Step != r.step",
	}}},
	{"keys are enqueued before the commit", []edit{
		{
			"replica/session.go",
			"	if err := s.objective.enqueue(s.vote.classes); err != nil {\n		return fmt.Errorf(\"enqueue the keys of step %d: %w\", c.Step, err)\n	}\n",
			"",
		},
		{
			"replica/step.go",
			"	ready.Round, ready.Step, ready.Digest = s.vote.round",
			"	if err := s.objective.enqueue(s.vote.classes); err != nil {\n		return protocol.Commit{}, err\n	}\n	ready.Round, ready.Step, ready.Digest = s.vote.round",
		},
	}},
	{"the grace time is counted while nobody is connected", []edit{{
		"coordinator/patience/patience.go",
		"	case !could:\n		p.missing = time.Time{}\n		return true\n	case p.missing.IsZero():",
		"	case p.missing.IsZero():",
	}}},
	{"the number of a round is not reserved", []edit{{
		"coordinator/gather.go",
		"	c.do(Reserve{r.Number()})\n",
		"",
	}}},
	{"shards are given up before the round's first commit", []edit{{
		"replica/negatives.go",
		"		if !slices.Contains(keep, h.Index) {",
		"		if false {",
	}}},
	{"commits that were not recorded are not told after a restart", []edit{{
		"coordinator/server.go",
		"		for _, commit := range missed {",
		"		for _, commit := range missed[:0] {",
	}}},
	{"a replica that voted does not introduce itself again", []edit{{
		"replica/states.go",
		"commit: apply, stop: interrupt, again: introduce,",
		"commit: apply, stop: interrupt, again: drop,",
	}}},
	{"upload verified by its step only", []edit{{
		"coordinator/server.go",
		"		return s.votes.after(ctx, step)\n",
		"		return Voted{}, nil\n",
	}}},
	{"images of an older round are computed on", []edit{{
		"replica/input/input.go",
		"	in.source.Reset()\n	in.units",
		"	in.units",
	}}},
	{"the digests of votes are not compared", []edit{{
		"coordinator/round/step.go",
		"return r.VoteOf(m).Digest })",
		"return \"\" })",
	}}},
}
