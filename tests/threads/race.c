/* Two threads in spin() race: what ThreadSanitizer is there to see. */
static volatile long counter;

long spin(long turns) {
    while (turns--) counter++;
    return counter;
}
