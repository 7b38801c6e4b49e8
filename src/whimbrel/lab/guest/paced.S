/* A machine without an operating system: it writes one word into each of a range of pages, in a
 * full-period order, at a paced rate, for ever. It runs where no Linux does, such as under a
 * para-virtual KVM.
 *
 * It is the machine's firmware: 64 KiB that end at 4 GiB, so the processor's first instruction is
 * the one at 0xFFFFFFF0 (Intel SDM 3A, 11.1.4). It uses no stack, no interrupt and no paging.
 *
 * The first three words are parameters that lab/paced.py puts in.
 */
        .equ    COUNTER, 0x7000         /* writes since the rate holds; lab/paced.py reads it */
        .equ    TICKS, 59659            /* 50 ms of the timer's 1.193182 MHz */
        .equ    PER_SECOND, 20          /* such intervals */

        .text
        .code32
        .globl  _start
_start:
first:  .long   0                       /* address of the first page */
mask:   .long   0                       /* pages - 1, pages being a power of two */
rate:   .long   0                       /* writes per second */

segments:
        .quad   0
        .quad   0x00CF9B000000FFFF      /* 8: all 4 GiB, code */
        .quad   0x00CF93000000FFFF      /* 16: all 4 GiB, data */
table:  .word   table - segments - 1
        .long   segments

flat:
        mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss

        /* Fill: no page of the range is zero once the rate holds. */
        mov     first, %edi
        mov     mask, %ecx
        inc     %ecx
        mov     $0x80000000, %eax
1:      mov     %eax, (%edi)
        add     $4096, %edi
        dec     %ecx
        jnz     1b

        /* Cycles per write: count cycles while channel 2 of the timer (8254) runs down. */
        in      $0x61, %al
        and     $0xFC, %al
        or      $0x01, %al              /* gate on, speaker off */
        out     %al, $0x61
        mov     $0xB0, %al              /* channel 2, low then high byte, mode 0 */
        out     %al, $0x43
        mov     $(TICKS & 0xFF), %al
        out     %al, $0x42
        mov     $(TICKS >> 8), %al
        out     %al, $0x42
        rdtsc
        mov     %eax, %ebx
1:      in      $0x61, %al
        test    $0x20, %al
        jz      1b
        rdtsc
        sub     %ebx, %eax
        mov     $PER_SECOND, %ecx
        mul     %ecx
        divl    rate
        mov     %eax, %ebp

        /* Write at the next deadline, edi:esi. One that was missed is made up for, so that the
         * rate holds over time whatever delays the processor. */
        rdtsc
        mov     %eax, %esi
        mov     %edx, %edi
        xor     %ebx, %ebx
        xor     %ecx, %ecx
2:      add     %ebp, %esi
        adc     $0, %edi
        imul    $1664525, %ecx, %ecx    /* full period modulo any power of two (Hull-Dobell) */
        add     $1013904223, %ecx
        and     mask, %ecx
        inc     %ebx
3:      rdtsc
        sub     %esi, %eax
        sbb     %edi, %edx
        js      3b
        mov     %ecx, %eax
        shl     $12, %eax
        add     first, %eax
        mov     %ebx, (%eax)
        mov     %ebx, COUNTER
        jmp     2b

        .code16
enter:  cli
        lgdtl   %cs:(table - _start)
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $8, $flat

        .org    0xFFF0
        jmp     enter
        .org    0x10000
