// Package splitmix is the mixing function behind every draw that must not
// depend on who makes it or in what order: the seeds of augmentation, the
// points of MoCHi, the substitute of a sample that cannot be decoded. A
// counter or an identity goes in, 64 well mixed bits come out, so any draw can
// be made again from its names alone.
//
// The function's values are part of reproducibility: another one would change
// the results of a seed. The CUDA kernels have their own copy in CUDA C
// (model/engine/cuda/kernel/contrast.cu), compared with this one by test.
package splitmix

// Mix is the output function of SplitMix64 (Steele, Lea & Flood 2014,
// "Fast splittable pseudorandom number generators") after one step of its Weyl
// sequence, so that 0 does not map to 0. It is a bijection of 64-bit words.
func Mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
