package cpu

// transposeAVX2 covers what is left of 8×8 blocks by blocks that overlap the
// last ones; smaller matrices go element by element.
func transposeAVX2(dst []float32, dstStride int, src []float32, srcStride, rows, cols int) {
	if rows < 8 || cols < 8 {
		transpose(dst, dstStride, src, srcStride, rows, cols)
		return
	}
	wholeRows, wholeCols := rows&^7, cols&^7
	avx2Transpose(&dst[0], dstStride, &src[0], srcStride, wholeRows, wholeCols)
	if j := cols - 8; wholeCols < cols {
		avx2Transpose(&dst[j*dstStride], dstStride, &src[j], srcStride, wholeRows, 8)
	}
	if i := rows - 8; wholeRows < rows {
		transposeAVX2(dst[i:], dstStride, src[i*srcStride:], srcStride, 8, cols)
	}
}

func copyRowsAVX2(dst []float32, dstStride int, src []float32, srcStride, rows, cols, gap int) {
	if rows < 1 || cols < 4 {
		copyRows(dst, dstStride, src, srcStride, rows, cols, gap)
		return
	}
	avx2CopyRows(&dst[0], dstStride, &src[0], srcStride, rows, cols, gap)
}

func everySecondAVX2(dst, src []float32) {
	n := min(len(dst), len(src)/2) &^ 3
	if n > 0 {
		avx2EverySecond(&dst[0], &src[0], n)
	}
	everySecond(dst[n:], src[min(2*n, len(src)):])
}

//go:noescape
func avx2Transpose(dst *float32, dstStride int, src *float32, srcStride, rows, cols int)

//go:noescape
func avx2CopyRows(dst *float32, dstStride int, src *float32, srcStride, rows, cols, gap int)

//go:noescape
func avx2EverySecond(dst, src *float32, n int)
