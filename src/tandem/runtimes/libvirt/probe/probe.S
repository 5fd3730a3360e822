        .set    LOG,    0xe9            # -debugcon: one letter for each thing that worked
        .set    EXIT,   0x501           # isa-debug-exit: QEMU ends with (value << 1) | 1
        .set    STACK,  0x8000
        .set    TABLES, 0x10000         # PML4, PDPT, PD of the first GiB, PD of the fourth, PT
        .set    IDT,    0x20000
        .set    TSS,    0x21000
        .set    TICKS,  0x22000
        .set    FAULTS, 0x22008
        .set    LAZY,   0x40000000      # the second GiB: not mapped until it is touched
        .set    APIC,   0xfee00000
        .set    ROUNDS, 3000000

        .macro  say letter
        movb    $\letter, %al
        outb    %al, $LOG
        .endm

        .text
        .globl  _start
_start:
        .code16
real:   cli
        say     'r'
        lgdtl   %cs:gdt_pointer - 0xf0000
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $0x08, $protected

        .code32
protected:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $STACK, %esp
        say     'p'
        # Four levels of tables that map the first and the fourth GiB onto themselves.
        movl    $TABLES, %edi
        xorl    %eax, %eax
        movl    $(0x5000 / 4), %ecx
        rep stosl
        movl    $(TABLES + 0x1007), TABLES
        movl    $(TABLES + 0x2007), TABLES + 0x1000
        movl    $(TABLES + 0x3007), TABLES + 0x1018
        movl    $(TABLES + 0x2000), %edi
        movl    $0x87, %eax
        movl    $512, %ecx
1:      movl    %eax, (%edi)
        addl    $0x200000, %eax
        addl    $8, %edi
        loop    1b
        movl    $(TABLES + 0x3000), %edi
        movl    $0xc0000097, %eax       # uncached: the local APIC lives here
        movl    $512, %ecx
1:      movl    %eax, (%edi)
        addl    $0x200000, %eax
        addl    $8, %edi
        loop    1b
        movl    $0x620, %eax            # PAE and SSE
        movl    %eax, %cr4
        movl    $TABLES, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x101, %eax            # long mode, SYSCALL
        wrmsr
        movl    %cr0, %eax
        andl    $~4, %eax
        orl     $0x80000002, %eax
        movl    %eax, %cr0
        ljmpl   $0x18, $long

        .code64
long:   xorl    %eax, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        say     'l'

        # Interrupt table: every vector ends up in one of three handlers.
        movl    $IDT, %edi
        movl    $256, %ecx
1:      movq    $stray, %rax
        call    gate
        loop    1b
        movl    $(IDT + 6 * 16), %edi
        movq    $undefined, %rax
        call    gate
        movl    $(IDT + 14 * 16), %edi
        movq    $missing, %rax
        call    gate
        movl    $(IDT + 0x40 * 16), %edi
        movq    $tick, %rax
        call    gate
        lidt    idt_pointer
        movq    $0, TICKS
        movq    $0, FAULTS

        # A fault and back.
        ud2
        say     'u'

        # Work on registers and vectors: native speed takes 10 ms, an interpreter never ends.
        movl    $ROUNDS, %ecx
        movl    $1, %eax
        movd    %eax, %xmm0
        pxor    %xmm1, %xmm1
1:      imull   $1664525, %eax, %eax
        addl    $1013904223, %eax
        movd    %eax, %xmm2
        paddd   %xmm2, %xmm1
        pxor    %xmm0, %xmm1
        decl    %ecx
        jnz     1b
        say     'w'

        # Pages that are mapped by the fault handler when they are first touched.
        movq    $LAZY, %rdi
        movl    $64, %ecx
1:      movq    %rdi, (%rdi)
        cmpq    %rdi, (%rdi)
        jne     stray
        addq    $0x200000, %rdi
        loop    1b
        cmpq    $64, FAULTS
        jne     stray
        say     'm'

        # User mode and a system call, a few thousand times.
        movl    $TSS, %edi
        xorl    %eax, %eax
        movl    $26, %ecx
        rep stosl
        movq    $STACK, TSS + 4
        movw    $0x28, %ax
        ltr     %ax
        movl    $0xc0000081, %ecx       # STAR
        xorl    %eax, %eax
        movl    $0x00300018, %edx       # SYSCALL to 18/20, SYSRET to 40/38
        wrmsr
        movl    $0xc0000082, %ecx       # LSTAR
        movl    $called, %eax
        xorl    %edx, %edx
        wrmsr
        movl    $0xc0000084, %ecx       # SFMASK
        movl    $0x200, %eax
        wrmsr
        movl    $20000, %ebx
        movl    $user, %ecx
        movl    $2, %r11d
        sysretq
user:   syscall
        jmp     user
called: decl    %ebx
        jz      1f
        sysretq
1:      say     's'

        # The local timer: a clock interrupt every so often, while the processor works on.
        movl    $APIC, %esi
        movl    $0x1ff, 0xf0(%rsi)
        movl    $0x0b, 0x3e0(%rsi)
        movl    $0x20040, 0x320(%rsi)
        movl    $100000, 0x380(%rsi)
        movl    $STACK, %esp
        sti
1:      pause
        cmpq    $10, TICKS
        jb      1b
        cli
        say     't'

        say     '.'
        movw    $EXIT, %dx
        movb    $42, %al
        outb    %al, %dx
        hlt

gate:   movw    %ax, (%rdi)
        movw    $0x18, 2(%rdi)
        movw    $0x8e00, 4(%rdi)
        shrq    $16, %rax
        movw    %ax, 6(%rdi)
        movq    $0, 8(%rdi)
        addq    $16, %rdi
        ret

stray:  say     '!'
        movw    $EXIT, %dx
        movb    $1, %al
        outb    %al, %dx
1:      hlt
        jmp     1b

undefined:
        addq    $2, (%rsp)
        iretq

missing:                                # maps the 2 MiB page at CR2 onto the first 2 MiB
        pushq   %rax
        pushq   %rdx
        incq    FAULTS
        movl    $(TABLES + 0x4007), (TABLES + 0x1008)
        movq    %cr2, %rax
        shrq    $21, %rax
        andl    $511, %eax
        movq    $0x400087, %rdx
        movq    %rdx, TABLES + 0x4000(,%rax,8)
        popq    %rdx
        popq    %rax
        addq    $8, %rsp
        iretq

tick:   incq    TICKS
        movl    $0, 0xb0(%rsi)          # the loop keeps the APIC there
        iretq

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9a000000ffff      # 08 code, 32 bit
        .quad   0x00cf92000000ffff      # 10 data
        .quad   0x00af9a000000ffff      # 18 code, 64 bit
        .quad   0x00cf92000000ffff      # 20 data
        .quad   0x0000890210000067      # 28 TSS
        .quad   0                       # 30 its upper half; base of SYSRET
        .quad   0x00cff2000000ffff      # 38 user data
        .quad   0x00affa000000ffff      # 40 user code, 64 bit
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt
idt_pointer:
        .word   0xfff
        .quad   IDT

        .org    0xff0                   # the reset vector
        .code16
        jmp     real
        .org    0x1000
