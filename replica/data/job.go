package data

import "slices"

// job is a request on its way.
type job struct {
	batch   *Batch
	request Request
	tasks   []task
	next    int           // first task that nobody took
	left    int           // tasks not finished
	err     error         // the first one
	done    chan struct{} // closed when err is set, or left is 0
}

// task is one sample of a job.
type task struct {
	ref        Ref
	query, key seat
}

// seat is where a view goes: sample index of group; group −1 for nowhere.
type seat struct{ group, index int }

// plan joins the two views of each sample into one task.
func plan(r Request) []task {
	none := seat{group: -1}
	var tasks []task
	byRef := make(map[Ref]int)
	for group, refs := range r.Query {
		for i, ref := range refs {
			byRef[ref] = len(tasks)
			tasks = append(tasks, task{ref: ref, query: seat{group, i}, key: none})
		}
	}
	for group, refs := range r.Key {
		for i, ref := range refs {
			if at, found := byRef[ref]; found && tasks[at].key == none {
				tasks[at].key = seat{group, i}
				continue
			}
			tasks = append(tasks, task{ref: ref, query: none, key: seat{group, i}})
		}
	}
	return tasks
}

// claim returns the oldest job in the window with a task that nobody took, nil
// too when enough workers are busy.
func (l *Loader) claim() *job {
	if l.crew.busy >= l.crew.limit() {
		return nil
	}
	for _, j := range l.jobs[:min(l.config.Depth, len(l.jobs))] {
		if j.next < len(j.tasks) {
			l.start(j)
			return j
		}
	}
	return nil
}

// start allocates a job's batch.
func (l *Loader) start(j *job) {
	if j.batch != nil {
		return
	}
	buffers := func(groups [][]Ref) [][]float32 {
		var views [][]float32
		for _, refs := range groups {
			views = append(views, l.buffer(len(refs)*l.recipe.ViewLen()))
		}
		return views
	}
	j.batch = &Batch{Step: j.request.Step, Query: buffers(j.request.Query), Key: buffers(j.request.Key), loader: l}
}

// buffer takes a buffer of n values off the free list, or makes one.
func (l *Loader) buffer(n int) []float32 {
	list := l.free[n]
	if len(list) == 0 {
		return make([]float32, n)
	}
	l.free[n] = list[:len(list)-1]
	return list[len(list)-1]
}

// recycle puts a batch's buffers on the free list.
func (l *Loader) recycle(b *Batch) {
	if !l.closed {
		for _, views := range slices.Concat(b.Query, b.Key) {
			l.free[len(views)] = append(l.free[len(views)], views)
		}
	}
	b.Query, b.Key = nil, nil
}

// fail ends a job early: the tasks that nobody took are dropped. A job that
// is already done keeps its outcome, unless Reset drops it.
func (l *Loader) fail(j *job, err error) {
	if j.err != nil {
		return
	}
	j.err = err
	if j.left > 0 {
		close(j.done)
	}
	untaken := len(j.tasks) - j.next
	j.next = len(j.tasks)
	if j.left == 0 && j.batch != nil {
		l.recycle(j.batch)
		return
	}
	l.finish(j, untaken)
}

// finish counts n tasks off. The last one announces the job, or, when it
// failed, recycles its memory, which until then a worker may be writing to.
func (l *Loader) finish(j *job, n int) {
	if n == 0 {
		return
	}
	if j.left -= n; j.left > 0 {
		return
	}
	switch {
	case j.err == nil:
		close(j.done)
	case j.batch != nil:
		l.recycle(j.batch)
	}
}
