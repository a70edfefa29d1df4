package replica

import "mochi/replica/data"

// On a GPU the images of a step are on their way before it begins: the queries
// while keys are computed, those of each further program run while the one before
// it computes, and the first keys of the next step while this one's last run goes
// backward, if the loader has them by then. Other engines ignore all of it.

// ahead stages the first keys of the next step. It changes nothing if they are
// not there yet.
func (s *session) ahead() error {
	next := s.loader.Ready()
	if next == nil || len(next.Key) == 0 {
		return nil
	}
	s.staged = next
	return s.moco.StageKeys(next.Key[0])
}

// took is told which batch a step is about. What is staged may be of another
// one, whose memory is somebody else's by now.
func (s *session) took(b *data.Batch) error {
	if s.staged == b {
		s.staged = nil
		return nil
	}
	return s.unstage()
}

// unstage lets go of all images.
func (s *session) unstage() error {
	s.staged = nil
	if err := s.moco.StageKeys(nil); err != nil {
		return err
	}
	return s.moco.StageQueries(nil)
}
